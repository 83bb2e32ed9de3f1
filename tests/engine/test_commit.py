"""Images made of containers."""

from __future__ import annotations

from harness import Client, DockerCLI


def test_commit_takes_files_and_changes(docker: DockerCLI, api: Client) -> None:
    box = docker.out("run", "-d", "--network", "none", "busybox", "sleep", "1000")
    docker("exec", box, "sh", "-c", "echo kept > /kept; rm /etc/group")
    id = docker.out(
        "commit", "-a", "me", "-m", "why", "-c", "ENV A=b", "-c", 'CMD ["cat", "/kept"]', box, "made:1"
    )
    try:
        assert docker.out("run", "--rm", "--network", "none", "made:1") == "kept"
        assert docker(
            "run", "--rm", "--network", "none", "made:1", "ls", "/etc/group", check=False
        ).returncode
        image = api.get(f"/images/{id}/json").expect(200).json
        assert (image["Author"], image["Comment"]) == ("me", "why")
        assert "A=b" in image["Config"]["Env"]
        assert api.get(f"/containers/{box}/json").json["State"]["Status"] == "running"
    finally:
        docker("rmi", "-f", "made:1")
