"""Measures runs and folders of images: results with protocols, uncertainties and references."""
