"""Names for instances that are given none."""

from __future__ import annotations

import secrets
from collections.abc import Container

_ADJECTIVES = (
    "able ample apt bold brave brief bright brisk calm civil clean clear clever close cool crisp curious dapper deep "
    "eager early easy equal exact fair famous fancy fast fine firm fit fleet fluent fond frank free fresh gentle glad "
    "golden good grand great handy happy hardy honest humble ideal jolly keen kind large light lively loyal lucky "
    "mellow merry mild modest neat nimble noble novel open patient plain polite prime proud pure quick quiet rapid "
    "ready regal rich right robust safe sharp shiny simple sincere sleek smart smooth snug social solid sound stable "
    "steady strong sunny sure swift tidy top true trusty upbeat valid vast vivid warm wise witty worthy young"
)
_ANIMALS = (
    "alpaca ant badger bat bear beaver bee beetle bird bison bobcat buck camel carp cat cheetah chicken civet clam "
    "cobra cod colt condor coral cougar cow coyote crab crane cricket crow deer dingo dog dolphin donkey dove dragon "
    "duck eagle eel egret elf elk emu falcon fawn ferret finch fish fly fox frog gecko gibbon giraffe glider gnat goat "
    "goose grouse gull hare hawk hen heron hippo horse hound ibex ibis iguana impala jackal jaguar jay kiwi koala koi "
    "lamb lark lemur leopard lion lizard llama lobster lynx magpie mako mantis marlin marmot marten mink mole monkey "
    "moose moth mouse mule newt ocelot octopus orca osprey otter owl ox panda panther parrot pelican penguin perch "
    "pigeon pika pony puma quail rabbit ram raven ray robin salmon seal shark sheep shrew shrimp skunk sloth snail "
    "snipe sole spider squid stag stork swan tapir tiger toad trout tuna turtle urchin viper vole walrus wasp weasel "
    "whale wolf wombat wren yak zebra"
)


def generate(taken: Container[str]) -> str:
    """Return a name of two words that is not in `taken`."""
    while True:
        name = f"{secrets.choice(_ADJECTIVES.split())}-{secrets.choice(_ANIMALS.split())}"
        if name not in taken:
            return name
