//! A check's program that takes all memory, with the unit's limit around both of them.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::Host;
use crate::place::{IP, Place};

/// The kernel's group with the unit's limit, as systemd makes it; gone at the end.
struct Group {
    folder: PathBuf,
    /// Where the number of killed processes is told.
    events: &'static str,
}

impl Group {
    /// `None` and a message where there is no such thing.
    fn new() -> Option<Self> {
        let unit = include_str!("../../systemd/foip.service");
        let limit = unit.lines().find_map(|line| line.strip_prefix("MemoryMax=")).unwrap();
        let name = format!("foip-service-{}", std::process::id());
        for (root, file, events) in [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.oom_control"),
            ("/sys/fs/cgroup", "memory.max", "memory.events"),
        ] {
            let folder = PathBuf::from(root).join(&name);
            let group = Self { folder, events };
            if fs::create_dir(&group.folder).is_ok()
                && fs::write(group.folder.join(file), limit).is_ok()
            {
                return Some(group);
            }
        }
        eprintln!("SKIPPED: the kernel's memory groups cannot be used here");
        None
    }

    fn take(&self, process: u32) {
        fs::write(self.folder.join("cgroup.procs"), process.to_string()).unwrap();
    }

    fn killed(&self) -> u32 {
        let text = fs::read_to_string(self.folder.join(self.events)).unwrap();
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.unwrap().parse().unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = Command::new("rmdir").arg(&self.folder).status();
    }
}

#[test]
fn a_check_that_takes_all_memory_is_ended_and_foip_goes_on() {
    let Some(place) = Place::new() else { return };
    let Some(group) = Group::new() else { return };
    let host = Host::new();
    let mut file = place.file(&host);
    let right = file.clone();
    let member = place.start(host, &file);
    member.waits("the address", || place.has(IP, "eth0"));
    group.take(member.service.0.id());
    // `tail` keeps a line that does not end.
    file.rest = "[[check]]\nname = \"greedy\"\ninterval = \"20s\"\ntimeout = \"20s\"\nfall = 1\n\
                 command = [\"/bin/sh\", \"-c\", \"head -c 1000000000 /dev/zero | tail\"]\n"
        .to_owned();
    member.reload(&file);
    member.waits("the check's end", || {
        let alarms = member.status().alarms;
        alarms.iter().any(|alarm| alarm.text.contains("greedy") && alarm.text.contains("137"))
    });
    assert!(group.killed() > 0);
    // The same process goes on, and so does its Lease.
    let renewed = place.requests("PUT", "foip-default");
    member.waits("renewals", || place.requests("PUT", "foip-default") > renewed + 2);
    assert!(place.has(IP, "eth0"));
    member.reload(&right);
    member.waits("silence", || {
        member.status().alarms.iter().all(|alarm| !alarm.text.contains("greedy"))
    });
    drop(member);
}
