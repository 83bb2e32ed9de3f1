"""Each field of Mount, and the fields of HostConfig that are about mounts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine.asked import create, inspect, refusal, run, start
from harness import Busybox, Client, Daemon, Layer, Longshored, docker_archive

from longshore.linux.host import discover
from longshore.linux.mount import MountFlags, mount, umount

proves = pytest.mark.proves
RECURSIVE = pytest.mark.skipif(discover().kernel < (5, 12), reason="needs mount_setattr(2)")
TRY = "for where in /x /x/sub; do touch $where/new 2>/dev/null && echo $where; done; ls /x/sub"


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    """A shared mount with a file system mounted on its `sub`, which holds the file `below`."""
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    mount(str(tree), tree, flags=MountFlags.BIND)
    mount("", tree, flags=MountFlags.SHARED)
    mount("below", tree / "sub", "tmpfs")
    (tree / "sub/below").touch()
    yield tree
    umount(tree / "sub")
    umount(tree)


@pytest.fixture(scope="module")
def pictures(daemon: Longshored, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An image to mount, with a file, a directory and a link that leads out."""
    files = {"album/cat": b"meow\n", "album/deep/dog": b"woof\n", "out": "/etc", "dog": "album/deep/dog"}
    archive = tmp_path_factory.mktemp("pictures") / "pictures.tar"
    docker_archive(archive, [Busybox.layer(), Layer(files)], ["pictures:latest"], {"Cmd": ["sh"]})
    daemon.load(archive)
    yield "pictures"
    daemon.reset()
    daemon.docker("rmi", "pictures", check=False)


def mounting(**field: Any) -> dict[str, Any]:
    return {"HostConfig": {"Mounts": [{"Target": "/x", **field}]}}


@pytest.mark.parametrize(
    ("read_only", "options", "wanted"),
    [
        (False, {}, "/x /x/sub below new"),
        pytest.param(
            False, {"NonRecursive": True}, "/x /x/sub new", marks=proves("Mount.BindOptions.NonRecursive")
        ),
        pytest.param(True, {}, "below", marks=[RECURSIVE, proves("Mount.ReadOnly")]),
        pytest.param(
            True,
            {"ReadOnlyNonRecursive": True},
            "/x/sub below new",
            marks=proves("Mount.BindOptions.ReadOnlyNonRecursive"),
        ),
        pytest.param(
            True,
            {"ReadOnlyForceRecursive": True, "Propagation": "rprivate"},
            "below",
            marks=[RECURSIVE, proves("Mount.BindOptions.ReadOnlyForceRecursive")],
        ),
    ],
)
@proves("HostConfig.Mounts", "Mount.Type", "Mount.Source", "Mount.Target")
def test_how_deep_a_bind_goes(
    api: Client, tree: Path, read_only: bool, options: dict[str, Any], wanted: str
) -> None:
    asked = mounting(Type="bind", Source=str(tree), ReadOnly=read_only, BindOptions=options)
    assert run(api, TRY, asked).split() == wanted.split()


@RECURSIVE
@pytest.mark.parametrize(("version", "wanted"), [("1.43", ["/x/sub", "below", "new"]), ("1.44", ["below"])])
@pytest.mark.parametrize("way", ["Binds", "Mounts"])
@proves("HostConfig.Binds")
def test_read_only_was_not_recursive(
    daemon: Longshored, api: Client, tree: Path, way: str, version: str, wanted: list[str]
) -> None:
    bind = {"Type": "bind", "Source": str(tree), "Target": "/x", "ReadOnly": True}
    asked = {"Binds": [f"{tree}:/x:ro"]} if way == "Binds" else {"Mounts": [bind]}
    assert run(Client(daemon.socket, version), TRY, {"HostConfig": asked}).split() == wanted


@proves("Mount.BindOptions.Propagation")
@pytest.mark.parametrize(("propagation", "wanted"), [("rslave", ["late"]), ("rprivate", [])])
def test_propagation(api: Client, tree: Path, propagation: str, wanted: list[str]) -> None:
    (tree / "later").mkdir()
    asked = mounting(Type="bind", Source=str(tree), BindOptions={"Propagation": propagation})
    id = start(api, asked)
    mount("late", tree / "later", "tmpfs")
    try:
        (tree / "later/late").touch()
        seen = Path(f"/proc/{inspect(api, id)['State']['Pid']}/root/x/later")
        assert [entry.name for entry in seen.iterdir()] == wanted
        assert inspect(api, id)["Mounts"][0]["Propagation"] == propagation
    finally:
        umount(tree / "later")


@proves("Mount.BindOptions.CreateMountpoint")
def test_a_source_is_made_if_asked_for(api: Client, tmp_path: Path) -> None:
    bind = {"Type": "bind", "Source": str(tmp_path / "made")}
    assert refusal(api, mounting(**bind)) == (
        400,
        f'invalid mount config for type "bind": bind source path does not exist: {tmp_path / "made"}',
    )
    run(api, "touch /x/file", mounting(**bind, BindOptions={"CreateMountpoint": True}))
    assert (tmp_path / "made/file").exists()


def test_the_daemons_own_mounts_are_not_kept_busy(daemon: Longshored, api: Client) -> None:
    for asked in ({"Binds": ["/:/x"]}, mounting(Type="bind", Source="/")["HostConfig"]):
        id = start(api, {"HostConfig": asked})
        assert inspect(api, id)["Mounts"][0]["Propagation"] == "rslave"
    assert refusal(api, {"HostConfig": {"Binds": ["/:/x:rprivate"]}}) == (
        400,
        'invalid mount config: must use either propagation mode "rslave" or "rshared" when mount source is '
        f'within the daemon root, daemon root: "{daemon.data_root}", bind mount source: "/", '
        'propagation: "rprivate"',
    )


@proves("Mount.VolumeOptions.NoCopy")
@pytest.mark.parametrize(("no_copy", "wanted"), [(False, "index.html"), (True, "")])
def test_copying_into_volumes(api: Client, no_copy: bool, wanted: str) -> None:
    volume = {"Type": "volume", "Source": "filled", "Target": "/www", "VolumeOptions": {"NoCopy": no_copy}}
    assert run(api, "ls /www", {"HostConfig": {"Mounts": [volume]}}) == wanted


@proves("Mount.VolumeOptions.Labels", "Mount.VolumeOptions.DriverConfig.Name")
@proves("Mount.VolumeOptions.DriverConfig.Options")
def test_volumes_are_made_as_asked_for(api: Client) -> None:
    options = {"type": "tmpfs", "device": "tmpfs", "o": "size=2m"}
    how = {"Labels": {"a": "b"}, "DriverConfig": {"Name": "local", "Options": options}}
    found = run(api, "grep ' /x ' /proc/mounts", mounting(Type="volume", Source="made", VolumeOptions=how))
    assert "size=2048k" in found
    volume = api.get("/volumes/made").json
    assert (volume["Labels"], volume["Driver"], volume["Options"]) == ({"a": "b"}, "local", options)
    wrong = mounting(Type="volume", Source="other", VolumeOptions={"DriverConfig": {"Name": "nosuch"}})
    status, message = refusal(api, wrong)
    assert (status, message.split(": ", 1)[1].split(":")[0]) == (
        404,
        "error looking up volume plugin nosuch",
    )


@proves("HostConfig.VolumeDriver")
def test_the_driver_of_volumes(api: Client) -> None:
    asked = {"VolumeDriver": "local", "Binds": ["driven:/x"]}
    id = create(api, {"HostConfig": asked}).expect(201).json["Id"]
    assert inspect(api, id)["Mounts"][0]["Driver"] == "local"
    wrong = {"VolumeDriver": "nosuch", "Binds": ["other:/x"]}
    status, message = refusal(api, {"HostConfig": wrong})
    assert status == 404
    assert "error looking up volume plugin nosuch" in message
    mounts = [{"Type": "volume", "Source": "other", "Target": "/x"}]
    made = create(api, {"HostConfig": {"VolumeDriver": "nosuch", "Mounts": mounts}}).expect(201).json
    assert made["Warnings"] == [
        "WARNING: the container-wide volume-driver configuration is ignored for volumes specified via "
        "'mount'. Use '--mount type=volume,volume-driver=...' instead"
    ]


@proves("Mount.VolumeOptions.Subpath")
def test_a_part_of_a_volume(daemon: Longshored, api: Client) -> None:
    run(
        api,
        "mkdir -p /v/a/b; echo deep > /v/a/b/file; ln -s /etc /v/out",
        {"HostConfig": {"Binds": ["v0:/v"]}},
    )
    part = {"Type": "volume", "Source": "v0"}
    assert run(api, "cat /x/file; touch /x/new", mounting(**part, VolumeOptions={"Subpath": "a/b"})) == "deep"
    assert run(api, "cat /x", mounting(**part, VolumeOptions={"Subpath": "a/b/file"})) == "deep"
    two = [
        {**part, "Target": "/x/y", "VolumeOptions": {"Subpath": "a"}},
        {**part, "Target": "/x-y", "VolumeOptions": {"Subpath": "a/b"}},
    ]
    assert run(api, "ls /x/y /x-y", {"HostConfig": {"Mounts": two}}) == "/x-y:\nfile\nnew\n\n/x/y:\nb"
    status, message = refusal(api, mounting(**part, VolumeOptions={"Subpath": "nosuch"}))
    assert (status, message.endswith("/v0/_data/nosuch: no such file or directory")) == (400, True)
    status, _ = refusal(api, mounting(**part, VolumeOptions={"Subpath": "out"}))
    assert status == 400
    assert refusal(api, mounting(**part, VolumeOptions={"Subpath": "../.."})) == (
        400,
        'invalid mount config for type "volume": subpath must be a relative path within the volume',
    )


@proves("Mount.TmpfsOptions.SizeBytes", "Mount.TmpfsOptions.Mode", "Mount.TmpfsOptions.Options")
def test_tmpfs(api: Client) -> None:
    script = "cp /bin/busybox /x/echo; /x/echo ran 2>/dev/null; stat -c %a /x; grep ' /x ' /proc/mounts"
    options = {"SizeBytes": 3 << 20, "Mode": 0o1750}
    plain = run(api, script, mounting(Type="tmpfs", TmpfsOptions=options))
    assert plain.startswith("1750\n")
    assert "noexec" in plain
    assert "size=3072k" in plain
    assert run(api, script, mounting(Type="tmpfs", TmpfsOptions={"Options": [["exec"]]})).startswith("ran\n")


@proves("HostConfig.Tmpfs")
def test_tmpfs_by_path(api: Client) -> None:
    found = run(api, "grep ' /t ' /proc/mounts", {"HostConfig": {"Tmpfs": {"/t": "size=1m,exec"}}})
    assert "size=1024k" in found
    assert "noexec" not in found


@proves("Mount.Consistency", only="record")
def test_consistency_is_for_other_systems(api: Client, tmp_path: Path) -> None:
    asked = mounting(Type="bind", Source=str(tmp_path), Consistency="cached")
    id = create(api, asked).expect(201).json["Id"]
    assert inspect(api, id)["HostConfig"]["Mounts"][0]["Consistency"] == "cached"


def test_images_are_mounted_read_only(api: Client, pictures: str) -> None:
    image = {"Type": "image", "Source": pictures}
    script = "cat /x/album/cat; touch /x/new 2>/dev/null || echo refused; ls -d /x/etc/hosts /x/.dockerenv"
    assert run(api, f"{script} 2>/dev/null; true", mounting(**image)) == "meow\nrefused"
    id = start(api, mounting(**image))
    shown = inspect(api, id)["Mounts"][0]
    assert Path(shown.pop("Source"), "album/cat").read_text() == "meow\n"
    assert shown == {
        "Type": "image",
        "Name": pictures,
        "Destination": "/x",
        "Mode": "",
        "RW": False,
        "Propagation": "rprivate",
    }


@proves("Mount.ImageOptions.Subpath")
def test_a_part_of_an_image(api: Client, pictures: str) -> None:
    image = {"Type": "image", "Source": pictures}
    assert run(api, "cat /x/dog", mounting(**image, ImageOptions={"Subpath": "album/deep"})) == "woof"
    assert run(api, "cat /x", mounting(**image, ImageOptions={"Subpath": "dog"})) == "woof"
    # A link leads nowhere but inside the image.
    assert "root" in run(api, "cat /x/passwd", mounting(**image, ImageOptions={"Subpath": "out"}))
    assert refusal(api, mounting(**image, ImageOptions={"Subpath": "/album"})) == (
        400,
        'invalid mount config for type "image": subpath must be a relative path within the volume',
    )
    status, message = refusal(api, mounting(**image, ImageOptions={"Subpath": "nosuch"}))
    assert (status, message.endswith("/nosuch: no such file or directory")) == (400, True)


def test_copying_out_of_mounts(daemon: Longshored, api: Client, pictures: str, tmp_path: Path) -> None:
    """Also of containers that do not run: images are there, and of what is in memory nothing."""
    image = {"Type": "image", "Source": pictures, "ImageOptions": {"Subpath": "album"}}
    mounts = [{**image, "Target": "/x"}, {"Type": "tmpfs", "Target": "/www"}]
    id = create(api, {"HostConfig": {"Mounts": mounts}}).expect(201).json["Id"]
    for where in ("made", "running", "stopped"):
        daemon.docker("cp", f"{id}:/x", str(tmp_path / where))
        assert (tmp_path / where / "cat").read_text() == "meow\n"
        daemon.docker("cp", f"{id}:/www", str(tmp_path / f"memory-{where}"))
        found = {entry.name for entry in (tmp_path / f"memory-{where}").iterdir()}
        assert found == (set() if where == "running" else {"index.html"})
        api.post(f"/containers/{id}/{'start' if where == 'made' else 'kill'}")
        if where == "running":
            api.post(f"/containers/{id}/wait").expect(200)


def layers(daemon: Daemon) -> set[str]:
    return {entry.name for entry in (daemon.data_root / "overlay2").iterdir() if len(entry.name) > 26}


def test_an_image_that_is_mounted_lives_as_long_as_the_mount(
    fresh_daemon: Longshored, busybox_archive: Path, tmp_path: Path
) -> None:
    daemon, api = fresh_daemon, Client(fresh_daemon.socket, "1.50")
    before = layers(daemon)
    image = [Busybox.layer(), Layer({"album/cat": b"meow\n"})]
    docker_archive(tmp_path / "image.tar", image, ["pictures:latest"], {})
    daemon.load(tmp_path / "image.tar")
    asked = mounting(Type="image", Source="pictures", ImageOptions={"Subpath": "album"})
    id = start(api, asked)
    api.post(f"/containers/{create(api, {'HostConfig': {'VolumesFrom': [id]}}).json['Id']}/start").expect(204)
    daemon.kill()  # a crash: the mount is taken over
    daemon.start()
    api.delete("/images/pictures", force=1).expect(200)
    assert daemon.docker.out("exec", id, "cat", "/x/cat") == "meow"
    api.post(f"/containers/{id}/restart", t=0).expect(204)
    assert daemon.docker.out("exec", id, "cat", "/x/cat") == "meow"
    daemon.reset()
    assert layers(daemon) == before


@pytest.mark.parametrize(
    ("mount", "message"),
    [
        (
            {"Type": "image", "Source": ""},
            'invalid mount config for type "image": field Source must not be empty',
        ),
        ({"Type": "image", "Source": "nosuch"}, "No such image: nosuch:latest"),
        (
            {"Type": "volume", "BindOptions": {}},
            'BindOptions must not be specified on mount type "volume"',
        ),
        (
            {"Type": "bind", "Source": "/tmp", "VolumeOptions": {}},
            'VolumeOptions must not be specified on mount type "bind"',
        ),
        (
            {"Type": "image", "Source": "busybox", "TmpfsOptions": {}},
            'TmpfsOptions must not be specified on mount type "image"',
        ),
        (
            {"Type": "bind", "Source": "/tmp", "ImageOptions": {"Subpath": "x"}},
            'invalid mount config for type "bind": field ImageOptions must not be specified',
        ),
        (
            {"Type": "tmpfs", "TmpfsOptions": {"Options": [["nosuid"]]}},
            'invalid mount config for type "tmpfs": invalid option: nosuid',
        ),
        (
            {"Type": "tmpfs", "TmpfsOptions": {"Options": [["a", "b", "c"]]}},
            'invalid mount config for type "tmpfs": invalid option array length',
        ),
        (
            {"Type": "bind", "Source": "/tmp", "BindOptions": {"ReadOnlyForceRecursive": True}},
            'invalid mount config for type "bind": mount option ReadOnlyForceRecursive requires ReadOnly',
        ),
    ],
)
def test_mounts_that_cannot_be(api: Client, mount: dict[str, Any], message: str) -> None:
    assert refusal(api, mounting(**mount)) == (404 if "No such" in message else 400, message)


@pytest.mark.parametrize(
    ("version", "mount", "message"),
    [
        ("1.47", {"Type": "image", "Source": "busybox"}, 'Mount type "Image" needs API v1.48 or newer'),
        (
            "1.44",
            {"Type": "volume", "Source": "v0", "VolumeOptions": {"Subpath": "x"}},
            "VolumeOptions.Subpath needs API v1.45 or newer",
        ),
        (
            "1.43",
            {"Type": "bind", "Source": "/etc", "BindOptions": {"ReadOnlyForceRecursive": True}},
            "BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer",
        ),
    ],
)
def test_what_older_clients_cannot_ask_for(
    daemon: Longshored, api: Client, version: str, mount: dict[str, Any], message: str
) -> None:
    assert refusal(Client(daemon.socket, version), mounting(**mount)) == (400, message)


def test_a_volume_cannot_lie_over_a_file(api: Client) -> None:
    status, message = refusal(api, {"Volumes": {"/etc/passwd": {}}})
    assert status == 500
    assert message.startswith("cannot mount volume over existing file, file exists ")
    assert message.endswith("/etc/passwd")


@proves("HostConfig.VolumesFrom")
def test_volumes_from(api: Client) -> None:
    id = start(api, {"HostConfig": {"Binds": ["given:/v"]}})
    script = "touch /v/new 2>/dev/null && echo written; ls -d /v"
    assert run(api, script, {"HostConfig": {"VolumesFrom": [id]}}) == "written\n/v"
    assert run(api, script, {"HostConfig": {"VolumesFrom": [f"{id}:ro"]}}) == "/v"
    assert refusal(api, {"HostConfig": {"VolumesFrom": [f"{id}:bogus"]}}) == (400, "invalid mode: bogus")


@proves("ContainerConfig.Volumes")
def test_volumes_of_the_configuration(api: Client) -> None:
    id = start(api, {"Volumes": {"/www": {}}})
    (shown,) = inspect(api, id)["Mounts"]
    assert (shown["Type"], shown["Destination"], len(shown["Name"])) == ("volume", "/www", 64)
    assert Path(shown["Source"], "index.html").exists()
