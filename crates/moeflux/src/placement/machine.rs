//! What memory the machine has: Linux tells it in `/proc` and in control groups, other systems not without foreign
//! functions.

use std::fs;
use std::path::{Path, PathBuf};

/// Numbers of the machine and of this process, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// What the process has in memory now.
    pub resident: u64,
    /// What the system could give without swapping (`MemAvailable`).
    pub system_free: Option<u64>,
    /// What the process's control groups would still let it have; page cache counts as free, since it makes room.
    pub group_free: Option<u64>,
}

impl Machine {
    /// Measures.
    pub fn measure() -> Self {
        Machine::below(Path::new("/"))
    }

    /// What the process could still have, as far as anybody tells.
    pub fn free(&self) -> Option<u64> {
        self.system_free.into_iter().chain(self.group_free).min()
    }

    /// The process's largest resident set so far, where the system tells it.
    pub fn peak_resident() -> Option<u64> {
        kilobytes(&read(Path::new("/proc/self/status"))?, "VmHWM:")
    }

    /// Reads the files under another root than `/`.
    fn below(root: &Path) -> Self {
        let status = read(&root.join("proc/self/status")).unwrap_or_default();
        let meminfo = read(&root.join("proc/meminfo")).unwrap_or_default();
        Machine {
            resident: kilobytes(&status, "VmRSS:").unwrap_or(0),
            system_free: kilobytes(&meminfo, "MemAvailable:"),
            group_free: group_free(root),
        }
    }
}

/// The names that the two versions of control groups have for the same things.
struct Group {
    limit: &'static str,
    used: &'static str,
    /// Prefix of the fields of `memory.stat` that count the groups below too.
    stat: &'static str,
}

const V1: Group = Group { limit: "memory.limit_in_bytes", used: "memory.usage_in_bytes", stat: "total_" };
const V2: Group = Group { limit: "memory.max", used: "memory.current", stat: "" };

/// The least that any group from the process's own up to the root leaves.
fn group_free(root: &Path) -> Option<u64> {
    let groups = read(&root.join("proc/self/cgroup"))?;
    let mounts = root.join("sys/fs/cgroup");
    let mut least = None;
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (mount, version) = if controllers.is_empty() {
            (mounts.clone(), V2)
        } else if controllers.split(',').any(|controller| controller == "memory") {
            (mounts.join("memory"), V1)
        } else {
            continue;
        };
        for folder in folders(&mount, path) {
            least = least.into_iter().chain(version.free(&folder)).min();
        }
    }
    least
}

/// A group's folder and those above it. Inside a container the path may be that of the host: then only the mount is there.
fn folders(mount: &Path, path: &str) -> Vec<PathBuf> {
    let own = mount.join(path.trim_start_matches('/'));
    own.ancestors().take_while(|folder| folder.starts_with(mount)).map(Path::to_owned).collect()
}

impl Group {
    fn free(&self, folder: &Path) -> Option<u64> {
        // `max` is no limit.
        let limit: u64 = read(&folder.join(self.limit))?.trim().parse().ok()?;
        // Version 1 says "none" by a number next to 2⁶³.
        if limit >= 1 << 60 {
            return None;
        }
        let used: u64 = read(&folder.join(self.used))?.trim().parse().ok()?;
        let stat = read(&folder.join("memory.stat")).unwrap_or_default();
        let cache: u64 =
            ["active_file", "inactive_file"].iter().filter_map(|name| self.stat_field(&stat, name)).sum();
        Some(limit.saturating_sub(used.saturating_sub(cache)))
    }

    fn stat_field(&self, stat: &str, name: &str) -> Option<u64> {
        let value = |line: &str| line.strip_prefix(self.stat)?.strip_prefix(name)?.trim().parse().ok();
        stat.lines().find_map(value)
    }
}

/// A field such as `VmRSS:   123 kB`, in bytes.
fn kilobytes(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    let number: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    number.checked_mul(1024)
}

fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed expectation is a failed test

    use super::*;

    /// A root with these files.
    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    const STATUS: (&str, &str) = ("proc/self/status", "Name:\tx\nVmHWM:\t    9 kB\nVmRSS:\t    7 kB\n");
    const MEMINFO: (&str, &str) =
        ("proc/meminfo", "MemTotal: 100 kB\nMemFree: 1 kB\nMemAvailable:    50 kB\n");

    #[test]
    fn without_any_file_nothing_is_known() {
        assert_eq!(Machine::below(root(&[]).path()), Machine::default());
        let garbled =
            [("proc/meminfo", "MemAvailable: many kB"), ("proc/self/cgroup", "x\n1:memory\n0::/a\n")];
        assert_eq!(Machine::below(root(&garbled).path()), Machine::default());
    }

    #[test]
    fn the_system_alone() {
        let found = Machine::below(root(&[STATUS, MEMINFO]).path());
        let expected = Machine { resident: 7 << 10, system_free: Some(50 << 10), group_free: None };
        assert_eq!(found, expected);
    }

    #[test]
    fn version_1_with_a_limit_above() {
        let files = [
            STATUS,
            MEMINFO,
            ("proc/self/cgroup", "5:cpu,cpuacct:/a\n4:hugetlb,memory:/a/b\n0::/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "5000000\n"),
            ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "30000\n"),
            ("sys/fs/cgroup/memory/a/memory.usage_in_bytes", "29000\n"),
            (
                "sys/fs/cgroup/memory/a/memory.stat",
                "active_file 1\ntotal_active_file 2000\ntotal_inactive_file 7000\n",
            ),
            ("sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "40000\n"),
            ("sys/fs/cgroup/memory/a/b/memory.usage_in_bytes", "100\n"),
        ];
        let found = Machine::below(root(&files).path());
        assert_eq!((found.group_free, found.system_free), (Some(10000), Some(50 << 10)));
    }

    #[test]
    fn version_2_and_no_limit() {
        let files = [
            MEMINFO,
            ("proc/self/cgroup", "0::/user.slice/x.scope\n"),
            ("sys/fs/cgroup/user.slice/memory.max", "max\n"),
            ("sys/fs/cgroup/user.slice/memory.current", "77\n"),
            ("sys/fs/cgroup/user.slice/x.scope/memory.max", "6000\n"),
            ("sys/fs/cgroup/user.slice/x.scope/memory.current", "7000\n"),
            (
                "sys/fs/cgroup/user.slice/x.scope/memory.stat",
                "anon 500\ninactive_file 500\nactive_file 400\n",
            ),
        ];
        // More is used than allowed: nothing is free.
        assert_eq!(Machine::below(root(&files).path()).group_free, Some(0));
        let files = &files[..4];
        assert_eq!(Machine::below(root(files).path()).group_free, None);
    }

    #[test]
    fn a_container_that_sees_its_own_group_as_the_root() {
        let files = [
            ("proc/self/cgroup", "0::/docker/0123\n"),
            ("sys/fs/cgroup/memory.max", "6000\n"),
            ("sys/fs/cgroup/memory.current", "1000\n"),
        ];
        assert_eq!(Machine::below(root(&files).path()).group_free, Some(5000));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_machine() {
        let machine = Machine::measure();
        assert!(machine.resident > 0 && machine.system_free.is_some_and(|free| free > 0), "{machine:?}");
        assert!(Machine::peak_resident() >= Some(machine.resident / 2));
    }
}
