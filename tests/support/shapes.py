"""The keys of the dialect's objects, as LXD 5.0.2 sends them."""

from __future__ import annotations


def _keys(text: str) -> frozenset[str]:
    return frozenset(text.split())


INSTANCE = _keys(
    "architecture config created_at description devices ephemeral expanded_config expanded_devices last_used_at "
    "location name profiles project stateful status status_code type"
)
INSTANCE_FULL = INSTANCE | _keys("backups snapshots state")
STATE = _keys("cpu disk memory network pid processes status status_code")
SNAPSHOT = _keys(
    "architecture config created_at devices ephemeral expanded_config expanded_devices expires_at last_used_at name "
    "profiles size stateful"
)
BACKUP = _keys("container_only created_at expires_at instance_only name optimized_storage")
METADATA = _keys("architecture creation_date expiry_date properties templates")
IMAGE = _keys(
    "aliases architecture auto_update cached created_at expires_at filename fingerprint last_used_at profiles "
    "properties public size type uploaded_at"
)
ALIAS = _keys("description name target type")
OPERATION = _keys(
    "class created_at description err id location may_cancel metadata resources status status_code updated_at"
)
PROFILE = _keys("config description devices name used_by")
PROJECT = _keys("config description name used_by")
PROJECT_STATE = _keys("resources")
NETWORK = _keys("config description locations managed name status type used_by")
NETWORK_STATE = _keys("addresses bond bridge counters hwaddr mtu ovn state type vlan")
LEASE = _keys("address hostname hwaddr location type")
FORWARD = _keys("config description listen_address location ports")
POOL = _keys("config description driver locations name status used_by")
POOL_RESOURCES = _keys("inodes space")
VOLUME = _keys("config content_type created_at description location name project type used_by")
VOLUME_STATE = _keys("usage")
VOLUME_SNAPSHOT = _keys("config content_type created_at description expires_at name")
VOLUME_BACKUP = _keys("created_at expires_at name optimized_storage volume_only")
WARNING = _keys("count entity_url first_seen_at last_message last_seen_at location project severity status type uuid")
CERTIFICATE = _keys("certificate fingerprint name projects restricted type")
RESOURCES = _keys("cpu gpu memory network pci storage system usb")
SERVER = _keys("api_extensions api_status api_version auth auth_methods config environment public")
CLUSTER = _keys("enabled member_config server_name")
