"""Images: list, inspect, history, tag, remove, import, load, save, prune."""

from __future__ import annotations

from differential.compare import LOWERCASE, Case, Request, case, request

TAR = {"Content-Type": "application/x-tar"}
TAGGED = (request("POST /images/busybox/tag?repo=other&tag=1"),)
UNTAG = "DELETE /images/other:1"
USED = (request("POST /containers/create?name=box", {"Image": "other:1", "Cmd": ["true"]}),)


def imported() -> tuple[Request, ...]:
    """An empty image, imported from an empty tar."""
    return (Request("POST", "/images/create?fromSrc=-&repo=empty", b"\0" * 1024, TAR),)


CASES: list[Case] = [
    case("image list", "GET /images/json", same=("*.RepoTags", "*.Labels", "*.ParentId", "*.Size")),
    case("image list: by reference", "GET /images/json?filters=%7B%22reference%22%3A%5B%22busy*%22%5D%7D"),
    case(
        "image list: by a class of characters",
        "GET /images/json?filters=%7B%22reference%22%3A%5B%22%5B%5Ea%5D*%22%5D%7D",
        same=("*.RepoTags",),
    ),
    case(
        "image list: pattern that is none",
        "GET /images/json?filters=%7B%22reference%22%3A%5B%22%5B%22%5D%7D",
    ),
    case(
        "image list: no match",
        "GET /images/json?filters=%7B%22reference%22%3A%5B%22nope%22%5D%7D",
        same=("",),
    ),
    case(
        "image list: dangling", "GET /images/json?filters=%7B%22dangling%22%3A%5B%22true%22%5D%7D", same=("",)
    ),
    case(
        "image list: dangling that is none", "GET /images/json?filters=%7B%22dangling%22%3A%5B%22x%22%5D%7D"
    ),
    case("image list: unknown filter", "GET /images/json?filters=%7B%22nope%22%3A%5B%22x%22%5D%7D"),
    case(
        "image list: before a missing one", "GET /images/json?filters=%7B%22before%22%3A%5B%22nope%22%5D%7D"
    ),
    case(
        "image inspect",
        "GET /images/busybox/json",
        same=("RepoTags", "Architecture", "Os", "Config.Cmd", "Config.Env", "RootFS", "Size"),
    ),
    case("image inspect: with a tag", "GET /images/busybox:latest/json", same=("RepoTags",)),
    case("image inspect: missing", "GET /images/nope/json", newer="No such image: nope:latest"),
    case("image inspect: missing tag", "GET /images/busybox:nope/json", newer="No such image: busybox:nope"),
    case("image inspect: missing with a slash", "GET /images/a/b/c:1/json", newer="No such image: a/b/c:1"),
    case("image inspect: name that is none", "GET /images/A!/json", newer=LOWERCASE.format("A!")),
    case(
        "image inspect: missing id",
        f"GET /images/sha256:{'a' * 64}/json",
        newer=f"No such image: sha256:{'a' * 64}",
    ),
    case(
        "image history", "GET /images/busybox/history", same=("*.CreatedBy", "*.Size", "*.Tags", "*.Comment")
    ),
    case("image history: missing", "GET /images/nope/history"),
    case("image tag", "POST /images/busybox/tag?repo=other&tag=1", status_only=True),
    case("image untag", UNTAG, given=TAGGED, same=("",)),
    case("image tag: missing image", "POST /images/nope/tag?repo=other"),
    case(
        "image tag: name that is none",
        "POST /images/busybox/tag?repo=Other",
        newer=LOWERCASE.format("Other"),
    ),
    case("image tag: tag that is none", "POST /images/busybox/tag?repo=other&tag=-"),
    case("image tag: name like an id", "POST /images/busybox/tag?repo=sha256&tag=abc"),
    case("image tag: no repository", "POST /images/busybox/tag"),
    case("image tag: digest", f"POST /images/busybox/tag?repo=x@sha256:{'a' * 64}"),
    case("image remove: missing", "DELETE /images/nope"),
    case("image remove: missing tag", "DELETE /images/busybox:nope"),
    case("image remove: name that is none", "DELETE /images/A!", newer=LOWERCASE.format("A!")),
    case("image remove: one of two tags in use", UNTAG, given=(*TAGGED, *USED), same=("",)),
    case("image remove: imported", "DELETE /images/empty", given=imported()),
    case(
        "image remove: in use by one that exists",
        "DELETE /images/empty",
        given=(*imported(), request("POST /containers/create?name=box", {"Image": "empty", "Cmd": ["x"]})),
    ),
    case(
        "image remove: in use, forced",
        "DELETE /images/empty?force=1",
        given=(*imported(), request("POST /containers/create?name=box", {"Image": "empty", "Cmd": ["x"]})),
    ),
    case("image import", "POST /images/create?fromSrc=-&repo=empty", b"\0" * 1024, headers=TAR),
    case(
        "image import: no tar",
        "POST /images/create?fromSrc=-&repo=empty2",
        b"nope",
        headers=TAR,
        status_only=True,
    ),
    case(
        "image import: name that is none",
        "POST /images/create?fromSrc=-&repo=A!",
        b"\0" * 1024,
        headers=TAR,
        newer=LOWERCASE.format("A!"),
    ),
    case(
        "image import: change",
        "POST /images/create?fromSrc=-&repo=empty&changes=CMD%20echo",
        b"\0" * 1024,
        headers=TAR,
    ),
    case(
        "image import: change that is none",
        "POST /images/create?fromSrc=-&repo=empty&changes=NOPE",
        b"\0" * 1024,
        headers=TAR,
    ),
    case("image import: digest", f"POST /images/create?fromSrc=-&repo=x@sha256:{'a' * 64}", headers=TAR),
    case("image load: no tar", "POST /images/load", b"nope", headers=TAR),
    case("image load: empty tar", "POST /images/load", b"\0" * 1024, headers=TAR),
    case("image load: empty body", "POST /images/load", b"", headers=TAR),
    case("image pull: name that is none", "POST /images/create?fromImage=A!", newer=LOWERCASE.format("A!")),
    case("image pull: nothing", "POST /images/create", status_only=True),
    case("image save: missing", "GET /images/nope/get"),
    case("image save: two, one missing", "GET /images/get?names=busybox&names=nope"),
    case("image prune: nothing", "POST /images/prune", same=("",)),
    case("image prune: unknown filter", "POST /images/prune?filters=%7B%22nope%22%3A%5B%22x%22%5D%7D"),
    case(
        "image prune: dangling that is none",
        "POST /images/prune?filters=%7B%22dangling%22%3A%5B%22x%22%5D%7D",
    ),
    case("image push: missing", "POST /images/nope/push", headers={"X-Registry-Auth": "e30="}),
    case("commit: missing container", "POST /commit?container=nope", {}),
    case("commit: no container", "POST /commit", {}, status_only=True),
    case("distribution: name that is none", "GET /distribution/A!/json", newer=LOWERCASE.format("A!")),
    case("disk usage", "GET /system/df"),
]
