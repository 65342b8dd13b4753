"""The server in a group with little memory, and what the system says of it."""

import os
import re
import subprocess
import time
import urllib.request


class Group:
    """A control group of so many bytes; where none can be made, the server is told a limit, and its peak is looked at."""

    count = 0

    def __init__(self, limit):
        self.limit, self.folder, self.kind = limit, None, "--memory-limit (no control group can be made here)"
        Group.count += 1
        name = f"moeflux-hostile-{os.getpid()}-{Group.count}"
        for parent, file in [("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")]:
            folder = os.path.join(parent, name)
            try:
                if not os.path.exists(os.path.join(parent, "cgroup.procs")):
                    continue
                os.mkdir(folder)
                with open(os.path.join(folder, file), "w") as limit_file:
                    limit_file.write(str(limit))
            except OSError:
                if os.path.isdir(folder):
                    os.rmdir(folder)
                continue
            self.folder, self.kind = folder, f"control group, {file}"
            break

    def enter(self):
        """Called in the child."""
        if self.folder is not None:
            with open(os.path.join(self.folder, "cgroup.procs"), "w") as procs:
                procs.write(str(os.getpid()))

    def flags(self):
        """For the server: it sheds load where a control group would have it shed."""
        return [] if self.folder else ["--memory-limit", str(self.limit * 7 // 8)]

    def close(self):
        if self.folder is not None:
            for _ in range(50):
                try:
                    os.rmdir(self.folder)
                    return
                except OSError:
                    time.sleep(0.1)


class Server:
    def __init__(self, program, limit, folder, more):
        self.group = Group(limit)
        self.log = open(os.path.join(folder, "server.log"), "w+")
        command = [program, "serve", "models/demo", "--listen", "127.0.0.1:0",
                   "--sequences", os.path.join(folder, "sequences"), *self.group.flags(), *more]
        self.process = subprocess.Popen(command, stderr=self.log, preexec_fn=self.group.enter)
        for _ in range(600):
            with open(self.log.name) as log:
                found = re.search(r"serving .* at http://127\.0\.0\.1:(\d+)/", log.read())
            if found or self.process.poll() is not None:
                break
            time.sleep(0.1)
        if not found:
            raise SystemExit(f"the server did not start: see {self.log.name}")
        self.port = int(found[1])

    def is_alive(self):
        return self.process.poll() is None

    def memory(self):
        """Bytes of the process that no file backs, now and at most."""
        fields = {}
        try:
            with open(f"/proc/{self.process.pid}/status") as status:
                for line in status:
                    name, _, value = line.partition(":")
                    if value.endswith(" kB\n"):
                        fields[name] = int(value.split()[0]) << 10
        except OSError:
            pass
        return fields.get("RssAnon", 0), fields.get("VmHWM", 0)

    def reset_peak(self):
        try:
            with open(f"/proc/{self.process.pid}/clear_refs", "w") as file:
                file.write("5")
        except OSError:
            pass

    def metrics(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=30) as answer:
            text = answer.read().decode()
        return {name: float(value) for name, value in re.findall(r"^(\S+) (\S+)$", text, re.MULTILINE)}

    def end(self):
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.group.close()
        return self.process.returncode
