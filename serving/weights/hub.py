"""HubRemote: a repository of the Hugging Face hub, or of a mirror that speaks its API; made by weights.remotes.

The one invariant: files are fetched by the commit that the revision was resolved to, so a branch that moves meanwhile
mixes nothing. The library lists and resolves; the bytes come by the one download that every source has.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from serving.errors import BadInput, Forbidden, MissingDependency, NotFound, ReelmeshError, Unavailable, foreign_text
from serving.weights.http_bytes import HttpFiles, refusal
from serving.weights.remote import Digest, Listing, Pieces, RemoteFile

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import BlobLfsInfo, RepoSibling

_SHA256_CHARS: Final = 64
_SHA1_CHARS: Final = 40


class HubRemote:
    """One model repository at one revision.

    Args:
        name: ``owner/name``.
        revision: commit, branch or tag; None means the main branch.
        url: of the hub; empty means HF_ENDPOINT, else huggingface.co.
        token: None means HF_TOKEN or the login that huggingface_hub finds.
        timeout_s: on connecting, and on silence.
    """

    def __init__(self, name: str, revision: str | None, *, url: str, token: str | None, timeout_s: float) -> None:
        api, known_token = _library()
        self._name, self._revision, self._timeout_s = name, revision or "main", timeout_s
        self._api = api(endpoint=url.rstrip("/") or None, token=token)
        used = token or known_token()
        self._http = HttpFiles("the hub", {"Authorization": f"Bearer {used}"} if used else {}, timeout_s)

    def listing(self) -> Listing:
        """Every file with its size and digest, and the commit.

        Raises:
            NotFound: no such repository, or no such revision: names where to look.
            Forbidden: gated or private, and the token does not open it.
            Unavailable: the hub does not answer.
        """
        try:
            info = self._api.model_info(
                self._name, revision=self._revision, files_metadata=True, timeout=self._timeout_s
            )
        except Exception as error:  # the library raises its own, httpx2's, and ValueError for other JSON
            raise self._problem(error) from error
        files = tuple(self._file(sibling, str(info.sha)) for sibling in info.siblings or ())
        return Listing(info.sha, files)

    def open(self, file: RemoteFile, offset: int) -> AbstractContextManager[Pieces]:
        """The bytes of a file of that commit."""
        return self._http.open(file.place, offset)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _file(self, sibling: "RepoSibling", commit: str) -> RemoteFile:
        name, size = sibling.rfilename, sibling.size
        place = f"{self._api.endpoint}/{self._name}/resolve/{quote(commit, safe='')}/{quote(str(name))}"
        if not isinstance(name, str) or not isinstance(size, int):
            raise Unavailable(f"the hub lists a file of hf:{self._name} without name or size")
        return RemoteFile(name, size, place, digest_of(sibling.lfs, sibling.blob_id))

    def _problem(self, error: Exception) -> ReelmeshError:
        from huggingface_hub import errors

        page = f"{self._api.endpoint}/{self._name}"
        match error:
            case errors.RevisionNotFoundError():
                problem = f"hf:{self._name} has no revision {self._revision!r}"
                return NotFound(problem, field="source.revision", fix=f"look at {page}/commits/main and {page}/tags")
            case errors.GatedRepoError():
                fix = f"accept its terms at {page} and set HF_TOKEN, or weights.hub_token_file"
                return Forbidden(
                    f"hf:{self._name} is gated and the token does not open it", field="source.uri", fix=fix
                )
            case errors.RepositoryNotFoundError():
                fix = f"look at {page}; a private one needs HF_TOKEN, or weights.hub_token_file"
                return NotFound(f"the hub shows no model {self._name}", field="source.uri", fix=fix)
            case errors.HFValidationError() | errors.OfflineModeIsEnabled():
                fix = "write hf:owner/name, and unset HF_HUB_OFFLINE to pull"
                return BadInput(foreign_text(error), field="source.uri", fix=fix)
            case errors.HfHubHTTPError():
                return refusal(error.response.status_code, "the hub")
        return Unavailable(
            f"the hub cannot be reached: {type(error).__name__} {foreign_text(error)}",
            fix="look at the network, or name a mirror with REELMESH_WEIGHTS__HUB_URL",
        )


def digest_of(lfs: "BlobLfsInfo | None", blob_id: object) -> Digest | None:
    """The digest that the hub gives of a file: SHA-256 of large ones, git's own of the others; None for neither."""
    sha256 = getattr(lfs, "sha256", None)
    if isinstance(sha256, str) and len(sha256) == _SHA256_CHARS:
        return Digest("sha256", sha256.lower())
    if lfs is None and isinstance(blob_id, str) and len(blob_id) == _SHA1_CHARS:
        return Digest("git-sha1", blob_id.lower())
    return None


def _library() -> "tuple[type[HfApi], Callable[[], str | None]]":
    try:
        from huggingface_hub import HfApi, get_token
    except ModuleNotFoundError as error:
        fix = "pip install 'reelmesh[models]'"
        raise MissingDependency("weights from the hub need huggingface_hub", field="source.uri", fix=fix) from error
    return HfApi, get_token
