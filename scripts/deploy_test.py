"""config/deploy against the configurations it starts: every secret that they name is supplied, and the container knows when it is healthy."""

import json
import pathlib
import re
import subprocess
import tempfile
import tomllib
import unittest

import yaml

from running import PENSTOCK, Program, served

ROOT = pathlib.Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "config" / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yml").read_text())
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
# Ready as soon as it serves: nothing beside it is needed.
CONFIG = """
[[listener]]
address = "127.0.0.1:0"

[[upstream]]
name = "shop"
endpoints = [{ address = "127.0.0.1:9" }]

[[route]]
path = "/"
upstream = "shop"

[admin]
address = "127.0.0.1:0"
"""


def named(value, key=""):
    """Environment variables and files that a configuration names: (`env` or `file`, what)."""
    if isinstance(value, dict):
        return {found for inner, content in value.items() for found in named(content, inner)}
    if isinstance(value, list):
        return {found for content in value for found in named(content, key)}
    if not isinstance(value, str):
        return set()
    kind = re.fullmatch(r"(?:.*_)?(env|file)", key)
    found = {(kind.group(1), value)} if kind else {("file", value)} if key in ("cert", "key") and "/" in value else set()
    # The password of PostgreSQL has no key: its client reads it by itself.
    return found | ({("env", "PGPASSWORD")} if key == "ledger" and value.startswith("postgres") else set())


def variables(text):
    """Those in force, and those of the examples that are commented out."""
    now = {name for kind, name in named(tomllib.loads(text)) if kind == "env"}
    examples = set(re.findall(r"^# .*\b(?:\w+_)?env = \"(\w+)\"", text, re.M))
    return now, examples


class Compose(unittest.TestCase):
    def test_every_variable_of_its_configurations_is_supplied(self):
        tried = set()
        for name, service in COMPOSE["services"].items():
            supplied = service.get("environment", {})
            for volume in service.get("volumes", []):
                file = (DEPLOY / volume.split(":")[0]).resolve()
                if file.suffix != ".toml":
                    continue
                now, examples = variables(file.read_text())
                self.assertLessEqual(now | examples, set(supplied), f"{name}: {file.name}")
                for variable in now:
                    self.assertEqual(supplied[variable], f"${{{variable}:?set {variable}}}", "without it nothing starts, so its absence is told first")
                for variable in examples - now:
                    self.assertEqual(supplied[variable], f"${{{variable}:-}}")
                tried |= now | examples
        self.assertLessEqual({"PGPASSWORD", "PENSTOCK_PAYMENT_KEY", "PENSTOCK_REDIS_PASSWORD"}, tried)

    def test_the_configuration_of_the_image_needs_no_variable(self):
        file = re.search(r"^COPY (config/\S+\.toml) ", DOCKERFILE, re.M).group(1)
        self.assertEqual(variables((ROOT / file).read_text())[0], set())

    def test_what_it_mounts_from_the_repository_is_there(self):
        sources = [volume.split(":")[0] for service in COMPOSE["services"].values() for volume in service.get("volumes", [])]
        for source in sources:
            with self.subTest(source):
                self.assertTrue((DEPLOY / source).exists() if source.startswith(".") else source in COMPOSE["volumes"])
        build = COMPOSE["services"]["penstock"]["build"]
        self.assertEqual(((DEPLOY / build["context"]).resolve(), ROOT / build["dockerfile"]), (ROOT, DEPLOY / "Dockerfile"))

    def test_what_is_waited_for_says_when_it_is_healthy(self):
        for service in COMPOSE["services"].values():
            for other, how in service.get("depends_on", {}).items():
                self.assertEqual(how["condition"], "service_healthy")
                self.assertIn("healthcheck", COMPOSE["services"][other])


class Kubernetes(unittest.TestCase):
    def test_every_secret_of_its_configuration_is_supplied(self):
        needed = named(tomllib.loads((DEPLOY / "k8s" / "penstock.toml").read_text()))
        self.assertGreaterEqual(len(needed), 5)
        for file in ("edge.yaml", "worker.yaml"):
            pod = next(document for document in yaml.safe_load_all((DEPLOY / "k8s" / file).read_text()) if document["kind"] == "Deployment")["spec"]["template"]["spec"]
            container, = pod["containers"]
            mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
            supplied = {("env", variable["name"]) for variable in container["env"]}
            for volume in pod["volumes"]:
                secret = volume.get("secret", {})
                # A secret of the kind `tls` has these two.
                items = [item["path"] for item in secret.get("items", [])] or (["tls.crt", "tls.key"] if secret.get("secretName", "").endswith("-tls") else [])
                supplied |= {("file", f"{mounts[volume['name']]}/{path}") for path in items}
            self.assertLessEqual(needed, supplied, file)

    def test_every_resource_is_listed_and_there(self):
        listed = yaml.safe_load((DEPLOY / "k8s" / "kustomization.yaml").read_text())
        self.assertEqual(set(listed["resources"]), {file.name for file in (DEPLOY / "k8s").glob("*.yaml")} - {"kustomization.yaml"})


class Image(unittest.TestCase):
    def test_it_ships_the_stripped_profile_without_the_compiler(self):
        build, run = re.split(r"^FROM ", DOCKERFILE, flags=re.M)[1:]
        self.assertTrue(build.startswith("rust:") and run.startswith("debian:bookworm-slim"))
        self.assertIn("--profile dist", build)
        self.assertIn("target/dist/penstock", build)
        self.assertIn("install -D -s ", build)
        profile = tomllib.loads((ROOT / "Cargo.toml").read_text())["profile"]["dist"]
        self.assertEqual((profile["inherits"], profile["lto"], profile["codegen-units"]), ("release", "fat", 1))

    def test_the_health_check_asks_the_admin_address_of_the_shipped_configurations(self):
        for name in ("penstock.toml", "cluster.toml"):
            self.assertEqual(tomllib.loads((ROOT / "config" / name).read_text())["admin"]["address"], "127.0.0.1:9900")
        self.assertIn("/dev/tcp/127.0.0.1/9900 ", DOCKERFILE)

    def test_the_health_check_tells_a_ready_penstock_from_none(self):
        self.assertTrue(PENSTOCK.exists(), f"{PENSTOCK} is missing: cargo test --workspace --no-run builds it")
        check = json.loads(re.search(r"^HEALTHCHECK .*\\\n +CMD (\[.*\])$", DOCKERFILE, re.M).group(1))
        with tempfile.TemporaryDirectory() as folder:
            config = pathlib.Path(folder) / "penstock.toml"
            config.write_text(CONFIG)
            penstock = Program([str(PENSTOCK), "serve", "--config", str(config)], folder, {})
            try:
                _, admin = penstock.until(served)
                at_it = [word.replace("/9900", f"/{admin.rpartition(':')[2]}") for word in check]
                is_healthy = lambda command: subprocess.run(command, capture_output=True, timeout=10).returncode == 0
                self.assertTrue(is_healthy(at_it))
                self.assertFalse(is_healthy([word.replace("GET /ready", "GET /nothing") for word in at_it]))
            finally:
                penstock.stop()
            self.assertFalse(is_healthy(at_it))


if __name__ == "__main__":
    unittest.main()
