"""A server on the loopback address that speaks as much of the Hugging Face Hub's protocol as its client needs."""

import base64
import hashlib
import importlib
import json
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_NeverPrintThisToken"
REPOSITORY = r"(?P<repository>[\w.-]+/[\w.-]+)"


class Hub(ThreadingHTTPServer):
    """Repositories by name, each a list of commits: (message, files). Use as a context manager.

    Writing needs TOKEN; ``requests`` records method and path of what was asked for.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.repositories, self.private, self.objects, self.requests = {}, set(), {}, []

    def __enter__(self):
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.thread.join()
        self.server_close()

    def add(self, repository, files):
        """A commit by other means than the protocol."""
        self.repositories.setdefault(repository, []).append(("added", dict(files)))

    def files(self, repository, revision="main"):
        """The files of a branch or a commit, None where there is no such thing."""
        commits = self.repositories.get(repository)
        if commits is None:
            return None
        if revision == "main":
            return commits[-1][1] if commits else {}
        return next((files for i, (_, files) in enumerate(commits) if sha(repository, i) == revision), None)

    def head(self, repository):
        return sha(repository, len(self.repositories[repository]) - 1)


def sha(repository, number):
    """The hash of a repository's n-th commit."""
    return hashlib.sha1(f"{repository} {number}".encode()).hexdigest()


def use(address, cache, monkeypatch):
    """Point the client at a server and a cache of its own; it reads its environment variables once, at import."""
    importlib.import_module("huggingface_hub.hf_api")
    values = {
        "ENDPOINT": address,
        "HUGGINGFACE_CO_URL_TEMPLATE": address + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(cache),
        "HF_TOKEN_PATH": str(cache / "token"),
        "AGENT_HARNESSES_PATH": str(cache / "agents.json"),
        "HF_HUB_DISABLE_XET": True,
    }
    # Older versions import these names into other modules.
    for name, module in list(sys.modules.items()):
        if name.startswith("huggingface_hub."):
            for key in values.keys() & vars(module).keys():
                monkeypatch.setattr(module, key, values[key])
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    monkeypatch.delenv("HF_TOKEN", raising=False)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    # Method, pattern of the path, what answers, whether it writes.
    ROUTES = (
        ("POST", r"/api/repos/create", "create", True),
        ("POST", r"/api/validate-yaml", "validate", True),
        ("POST", rf"/api/models/{REPOSITORY}/preupload/main", "preupload", True),
        ("POST", rf"/{REPOSITORY}\.git/info/lfs/objects/batch", "batch", True),
        ("PUT", r"/storage/(?P<oid>\w+)", "store", False),  # the address itself is the permission, as at S3
        ("POST", rf"/api/models/{REPOSITORY}/commit/main", "commit", True),
        ("GET", rf"/api/(?:models|datasets)/{REPOSITORY}(?:/revision/(?P<revision>.+))?", "information", False),
        ("GET", rf"/api/(?:models|datasets)/{REPOSITORY}/tree/(?P<revision>[^/]+)(?P<folder>/.+)?", "tree", False),
        ("HEAD", rf"/(?:datasets/)?{REPOSITORY}/resolve/(?P<revision>[^/]+)/(?P<file>.+)", "resolve", False),
        ("GET", rf"/(?:datasets/)?{REPOSITORY}/resolve/(?P<revision>[^/]+)/(?P<file>.+)", "resolve", False),
    )

    def answer(self):
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append((self.command, path))
        length = int(self.headers.get("Content-Length") or 0)
        self.body = (
            self.rfile.read(length) if "chunked" not in self.headers.get("Transfer-Encoding", "") else self.chunks()
        )
        for method, pattern, name, writes in self.ROUTES:
            match = re.fullmatch(pattern, path)
            if method == self.command and match:
                known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
                hidden = match.groupdict().get("repository") in self.server.private
                if (writes or hidden) and not known:
                    return self.reply(401, {"error": "Invalid credentials"}, {"X-Error-Code": "RepoNotFound"})
                return getattr(self, name)(**match.groupdict())
        return self.reply(404, {"error": f"no route {self.command} {path}"})

    do_GET = do_POST = do_PUT = do_HEAD = answer

    def chunks(self):
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def reply(self, status, content=None, headers=None):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def create(self):
        asked = json.loads(self.body)
        repository = f"{asked['organization']}/{asked['name']}"
        url = {"url": f"{self.server.address}/{repository}"}
        if repository in self.server.repositories:
            return self.reply(409, {"error": "You already created this model repo", **url})
        self.server.repositories[repository] = []
        if asked.get("private") or asked.get("visibility") == "private":
            self.server.private.add(repository)
        return self.reply(200, url)

    def validate(self):
        self.reply(200, {"errors": [], "warnings": []})

    def preupload(self, repository):
        def mode(file):
            return "lfs" if file["path"].endswith(".safetensors") else "regular"

        files = json.loads(self.body)["files"]
        self.reply(200, {"files": [{"path": f["path"], "uploadMode": mode(f), "shouldIgnore": False} for f in files]})

    def batch(self, repository):
        wanted = json.loads(self.body)["objects"]
        href = f"{self.server.address}/storage/"
        actions = [{**o, "actions": {"upload": {"href": href + o["oid"]}}} for o in wanted]
        self.reply(200, {"transfer": "basic", "objects": actions}, {"Content-Type": "application/vnd.git-lfs+json"})

    def store(self, oid):
        if hashlib.sha256(self.body).hexdigest() != oid:
            return self.reply(400, {"error": "another hash"})
        self.server.objects[oid] = self.body
        return self.reply(200, b"")

    def commit(self, repository):
        files, message = dict(self.server.files(repository)), ""
        for line in self.body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header":
                message = value["summary"]
            elif item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
        self.server.repositories[repository].append((message, files))
        oid = self.server.head(repository)
        self.reply(
            200, {"success": True, "commitOid": oid, "commitUrl": f"{self.server.address}/{repository}/commit/{oid}"}
        )

    def found(self, repository, revision):
        """The files, or None after an answer that says what is missing."""
        files = self.server.files(repository, revision or "main")
        if files is None:
            code = "RevisionNotFound" if repository in self.server.repositories else "RepoNotFound"
            self.reply(404, {"error": code}, {"X-Error-Code": code})
        return files

    def information(self, repository, revision):
        files = self.found(repository, revision)
        if files is not None:
            siblings = [{"rfilename": name} for name in files]
            sha = self.server.head(repository)
            self.reply(200, {"_id": "1", "id": repository, "sha": sha, "siblings": siblings, "private": False})

    def tree(self, repository, revision, folder):
        files = self.found(repository, revision)
        if files is not None:
            chosen = {name: content for name, content in files.items() if name.startswith((folder or "")[1:])}
            self.reply(200, [{"type": "file", "path": n, "size": len(c), "oid": "0"} for n, c in chosen.items()])

    def resolve(self, repository, revision, file):
        files = self.found(repository, revision)
        if files is None:
            return
        commit = {"X-Repo-Commit": self.server.head(repository) if revision == "main" else revision}
        if file not in files:
            self.reply(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound", **commit})
            return
        etag = f'"{hashlib.sha256(files[file]).hexdigest()}"'
        self.reply(200, files[file], {"ETag": etag, **commit})

    def log_message(self, *_):
        """Nothing on the terminal."""
