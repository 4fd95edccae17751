"""Images of digits, and the networks, losses and schedule of yunjey/mnist-svhn-transfer."""

import ganlab
from ganlab_digits.losses import ClassFake, ClassReal, LSGANFake, LSGANReal
from ganlab_digits.networks import DigitDiscriminator, DigitGenerator
from ganlab_digits.schedule import FourUpdates
from ganlab_digits.sources import MNIST, Digits, Torchvision


@ganlab.hookimpl
def ganlab_sources() -> dict[str, type[ganlab.Source]]:
    return {"mnist": MNIST, "digits": Digits, "torchvision": Torchvision}


@ganlab.hookimpl
def ganlab_generators() -> dict[str, type[ganlab.Generator]]:
    return {"digits": DigitGenerator}


@ganlab.hookimpl
def ganlab_discriminators() -> dict[str, type[ganlab.Discriminator]]:
    return {"digits": DigitDiscriminator}


@ganlab.hookimpl
def ganlab_losses() -> dict[str, type[ganlab.Loss]]:
    return {"lsgan_real": LSGANReal, "lsgan_fake": LSGANFake, "class_real": ClassReal, "class_fake": ClassFake}


@ganlab.hookimpl
def ganlab_schedules() -> dict[str, type[ganlab.Schedule]]:
    return {"four_updates": FourUpdates}
