//! Memory that this process may use.

use std::fs;
use std::path::Path;

/// Returns the maximum memory of this process in bytes and its source: a cgroup, or the machine.
/// `None` if neither is known.
pub(super) fn limit() -> Option<(usize, &'static str)> {
    limit_below(Path::new("/"))
}

fn limit_below(root: &Path) -> Option<(usize, &'static str)> {
    let machine = machine(root).map(|bytes| (bytes, "machine"));
    let cgroup = cgroup(root).map(|bytes| (bytes, "cgroup"));
    // Cgroups of version 1 report a huge number if there is no limit.
    machine.into_iter().chain(cgroup).min()
}

fn machine(root: &Path) -> Option<usize> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// Returns the lowest limit of the cgroup of this process and its ancestors. Inside a container,
/// its own cgroup may appear as the root.
fn cgroup(root: &Path) -> Option<usize> {
    let text = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let limits = text.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let (mount, file) = match controllers {
            "" => ("sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => return None,
        };
        let mount = root.join(mount);
        let groups = Path::new(path.trim_start_matches('/')).ancestors();
        let limits = groups.filter_map(|group| fs::read_to_string(mount.join(group).join(file)).ok());
        limits.filter_map(|limit| limit.trim().parse::<usize>().ok()).min()
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the limit below a root directory with these files.
    fn limit_with(files: &[(&str, &str)]) -> Option<(usize, &'static str)> {
        static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("tower-eureka-memory-{}-{number}", std::process::id()));
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let limit = limit_below(&root);
        let _ = fs::remove_dir_all(root);
        limit
    }

    #[test]
    fn memory_limit_is_the_lowest_of_cgroups_and_machine() {
        let machine = ("proc/meminfo", "MemTotal:       24000000 kB\nMemFree:  1 kB\n");
        let v1 = ("proc/self/cgroup", "5:cpu,cpuacct:/a\n4:memory:/a/b\n0::/\n");
        let v2 = ("proc/self/cgroup", "0::/a/b\n");
        let whole = Some((24_000_000 * 1024, "machine"));
        let half = Some((512 << 20, "cgroup"));
        for (files, expected) in [
            (vec![], None),
            (vec![machine], whole),
            (vec![machine, v1, ("sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "9223372036854771712\n")], whole),
            (vec![machine, v1, ("sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "536870912\n")], half),
            (vec![machine, v1, ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "536870912\n")], half),
            (vec![machine, v1, ("sys/fs/cgroup/memory/memory.limit_in_bytes", "536870912\n")], half),
            (vec![machine, v2, ("sys/fs/cgroup/a/b/memory.max", "max\n")], whole),
            (vec![v2, ("sys/fs/cgroup/a/b/memory.max", "max\n"), ("sys/fs/cgroup/a/memory.max", "536870912\n")], half),
            (vec![machine, v2, ("sys/fs/cgroup/memory.max", "536870912\n")], half),
            (vec![machine, ("proc/self/cgroup", "garbage\n0::\n:::\n")], whole),
        ] {
            assert_eq!(limit_with(&files), expected, "{files:?}");
        }
    }
}
