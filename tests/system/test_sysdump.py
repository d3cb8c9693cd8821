"""What kubectl vdpa does with what it is told, without a cluster: what a sysdump keeps, and answers that are not JSON."""

import importlib.machinery
import importlib.util
import json
import sys

import pytest

from support import ROOT


@pytest.fixture(scope="module")
def vdpa():
    sys.dont_write_bytecode = True
    loader = importlib.machinery.SourceFileLoader("kubectl_vdpa", str(ROOT / "deviceplugin/ctl/kubectl-vdpa"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("kubectl_vdpa", loader))
    loader.exec_module(module)
    return module


@pytest.mark.parametrize("text, kept", [
    ("token=abc x", "token=<removed> x"),
    ("token: abc d\nnext: 1\n", "token: <removed>\nnext: 1\n"),
    ("the token is missing", "the token is missing"),
    ('{"auth": "a\\"b", "author": "me"}', '{"auth": <removed>, "author": "me"}'),
    ('{\\"password\\":\\"abc\\",\\"x\\":1}', '{\\"password\\":<removed>,\\"x\\":1}'),
    ('{"tokens": ["a]", "b"], "mtu": 5}', '{"tokens": <removed>, "mtu": 5}'),
    ("a:\n  password: |-\n    x\n\n    y\n  b: 1\n", "a:\n  password: <removed>\n  b: 1\n"),
    ("run --password hunter2 --verbose", "run --password <removed> --verbose"),
    ("-H 'Authorization: Basic abc' x", "-H 'Authorization: Basic <removed>' x"),
    ("Bearer abc.def", "Bearer <removed>"),
    ("https://user:pass@host/path", "https://<removed>@host/path"),
    ("-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----\nz", "<removed>\nz"),
    ("unclosed: [\npassword: {", "unclosed: [\npassword: <removed>"),
])
def test_secrets_are_removed(vdpa, text, kept):
    assert vdpa.without_secrets(text) == kept


def test_objects_without_values_of_the_environment_and_what_was_applied(vdpa):
    pod = {"metadata": {"annotations": {vdpa.APPLIED: "{}", "a": "token=x"}}, "spec": {"containers": [{
        "args": ["--token", "x", "--token=x", "--mtu", "5"], "automountServiceAccountToken": False,
        "env": [{"name": "A", "value": "x"}, {"name": "B", "valueFrom": {}}]}]}}
    assert vdpa.cleaned(pod) == {"metadata": {"annotations": {"a": "token=<removed>"}}, "spec": {"containers": [{
        "args": ["--token", "<removed>", "--token=<removed>", "--mtu", "5"], "automountServiceAccountToken": False,
        "env": [{"name": "A", "value": "<removed>"}, {"name": "B", "valueFrom": {}}]}]}}


def test_networks_of_our_type(vdpa):
    def ours(config):
        return vdpa.is_ours({"spec": {"config": config if isinstance(config, str) else json.dumps(config)}})
    assert ours({"type": "vdpa"}) and ours({"plugins": [{"type": "tuning"}, {"type": "vdpa"}]})
    assert not any(map(ours, ({"type": "macvlan"}, {"plugins": 5}, "{", "[]"))) and not vdpa.is_ours({})


def test_an_answer_that_is_not_json_is_a_failure(vdpa):
    with pytest.raises(vdpa.Failure, match="the answer of vdpa-ping is not understood .*: it is empty"):
        vdpa.parsed("", "vdpa-ping")
    with pytest.raises(vdpa.Failure, match="Killed"):
        vdpa.parsed(b"Killed", "vdpa-ping")
