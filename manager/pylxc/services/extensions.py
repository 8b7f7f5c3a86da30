"""The API extensions that this server has: a client uses what it finds here, so only what works may stand here.

LXD's names, in the order in which LXD got them; what they mean is in LXD's doc api-extensions. What pylxc adds is in
docs/api-extensions.md.
"""

from __future__ import annotations

LXD = """
    container_host_shutdown_timeout container_stop_priority container_last_used_at etag patch directory_manipulation
    container_cpu_time network profile_usedby container_exec_recording container_exec_signal_handling
    container_image_properties id_map storage file_delete file_append network_vlan image_create_aliases
    entity_description image_force_refresh file_symlinks network_vlan_physical container_edit_metadata resources
    kernel_limits console restrict_devlxd devlxd_events proxy file_get_symlink network_leases operation_description
    event_lifecycle devlxd_images container_local_cross_pool_handling proxy_unix proxy_udp
    proxy_tcp_udp_multi_port_handling network_state container_backup proxy_unix_dac_properties unix_priv_drop
    proxy_haproxy_protocol proxy_nat container_protection_delete snapshot_expiry container_backup_override_pool
    snapshot_expiry_creation
    container_full container_incremental_copy projects kernel_features event_location container_nic_routes
    lxc_features container_nic_ipvlan container_nic_ipfilter image_compression_algorithm
    backup_compression_algorithm resources_v2 container_exec_user_group_cwd instances image_types images_expiry
    container_nic_routed image_profiles api_filtering instance_nic_network backup_override_name firewall_driver
    container_nic_routed_gateway resources_cpu_socket resources_gpu resources_numa resources_disk_sata
    resources_network_firmware resources_disk_id container_nic_routed_host_address container_nic_ipvlan_gateway
    resources_usb_pci resources_cpu_threads_numa resources_cpu_core_die api_os container_nic_routed_host_table
    container_nic_ipvlan_host_table container_nic_ipvlan_mode resources_system container_nic_routed_limits
    instance_nic_bridged_vlan usedby_consistency resources_pci_iommu resources_network_usb resources_disk_address
    instance_nic_bridged_port_isolation instance_bulk_state_change network_gvrp projects_images_remote_cache_expiry
    projects_images_auto_update server_supported_storage_drivers event_lifecycle_requestor_address network_forward
    network_counters_errors_dropped linux_sysctl cloud_init instance_all_projects instance_pool_move
    instance_get_full event_project instance_allow_inconsistent_copy instance_nic_routed_neighbor_probe
    instance_file_head operation_wait metadata_configuration instance_create_start
"""

PYLXC = (
    "pylxc_direct_backup",
    "pylxc_exec_upgrade",
    "pylxc_file_tree",
    "pylxc_init",
    "pylxc_lan",
    "pylxc_recipes",
    "pylxc_remote_images",
    "pylxc_version",
    "pylxc_wait",
)

NAMES: tuple[str, ...] = (*LXD.split(), *PYLXC)
