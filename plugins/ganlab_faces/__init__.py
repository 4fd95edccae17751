"""Published sets of faces: CelebA, Danbooru Faces and IMDB-WIKI. None is downloaded: each source says where to get its
set and what its licence allows."""

import ganlab
from ganlab_faces.celeba import CelebA
from ganlab_faces.danbooru import DanbooruFaces
from ganlab_faces.imdb_wiki import IMDBWiki


@ganlab.hookimpl
def ganlab_sources() -> dict[str, type[ganlab.Source]]:
    return {"celeba": CelebA, "danbooru_faces": DanbooruFaces, "imdb_wiki": IMDBWiki}
