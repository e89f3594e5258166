//! Checks who can read the files with the keys of the old API's clients.
//!
//! The keys are in plain text, so only the service should be able to read them: its user or its group.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use duffy_config::Metaclient;
use nix::unistd::{Gid, Group, Uid, getegid, geteuid};

use crate::failure::Failure;
use crate::output;

/// Warns of each file that others can read, and suggests a command. Fails if the configuration has `strict-permissions`.
pub fn check(metaclient: &Metaclient, warn: impl Fn(&str)) -> Result<(), Failure> {
    let reader = Reader {
        user: geteuid(),
        group: getegid(),
    };
    let mut exposed = Vec::new();
    for file in &metaclient.usermap_files {
        match reader.exposure(file) {
            Ok(None) => {}
            Ok(Some(exposure)) => exposed.push(exposure),
            Err(error) => warn(&format!(
                "{}: cannot check who can read it: {error}",
                file.display()
            )),
        }
    }
    if metaclient.strict_permissions && !exposed.is_empty() {
        return Err(Failure::new(exposed.join("\n")));
    }
    for line in &exposed {
        warn(line);
    }
    Ok(())
}

/// The user and group of the service.
#[derive(Debug, Clone, Copy)]
struct Reader {
    user: Uid,
    group: Gid,
}

impl Reader {
    /// Reports who else can read the file, if anybody, and a command that prevents it.
    fn exposure(self, file: &Path) -> io::Result<Option<String>> {
        // Symbolic links are resolved, so that each part of the path is a real directory.
        let path = fs::canonicalize(file)?;
        let metadata = fs::metadata(&path)?;
        let (mode, group) = (metadata.mode(), Gid::from_raw(metadata.gid()));
        let others = mode & 0o004 != 0 && is_reachable(&path, None)?;
        // Root does not run the service, so its own group says nothing about the group of the service.
        let foreign = group != self.group && !self.user.is_root();
        let members = mode & 0o040 != 0 && foreign && is_reachable(&path, Some(group))?;
        if !others && !members {
            return Ok(None);
        }
        let name = |gid: Gid| match Group::from_gid(gid) {
            Ok(Some(group)) => group.name,
            _ => gid.to_string(),
        };
        let who = match (others, members) {
            (true, _) => "every user of this machine".to_owned(),
            (false, _) => format!("the group {}", name(group)),
        };
        let owner = Uid::from_raw(metadata.uid());
        let shown = output::shell_word(&path.display().to_string());
        // The service itself must still be able to read it.
        let remedy = if owner == self.user {
            format!("chmod 600 {shown}")
        } else if foreign {
            format!("chgrp {} {shown} && chmod 640 {shown}", name(self.group))
        } else {
            format!("chmod 640 {shown}")
        };
        Ok(Some(format!(
            "{}: {who} can read the API keys in its `usermap`; type: {remedy}",
            file.display()
        )))
    }
}

/// Returns whether the members of a group, or everybody, can pass all directories above a file.
fn is_reachable(path: &Path, group: Option<Gid>) -> io::Result<bool> {
    for directory in path.ancestors().skip(1) {
        let metadata = fs::metadata(directory)?;
        let is_theirs = group.is_some_and(|group| group.as_raw() == metadata.gid());
        let bit = if is_theirs { 0o010 } else { 0o001 };
        if metadata.mode() & bit == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A file with this mode, in a directory with that one.
    fn exposure(reader: Reader, file_mode: u32, directory_mode: u32) -> Option<String> {
        let outer = tempfile::tempdir().unwrap();
        let set = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        let directory = outer.path().join("duffy's");
        fs::create_dir(&directory).unwrap();
        let file = directory.join("keys.yaml");
        fs::write(&file, "").unwrap();
        set(&file, file_mode);
        set(&directory, directory_mode);
        set(outer.path(), 0o755);
        let found = reader.exposure(&file).unwrap();
        found.map(|found| found.replace(&*outer.path().to_string_lossy(), ""))
    }

    fn owner() -> Reader {
        Reader {
            user: geteuid(),
            group: getegid(),
        }
    }

    /// Somebody who is neither root nor who made the file, nor in its group.
    fn stranger() -> Reader {
        Reader {
            user: Uid::from_raw(4_000_000),
            group: Gid::from_raw(4_000_001),
        }
    }

    #[test]
    fn only_the_service_should_read_keys() {
        for mode in [0o600, 0o400, 0o640, 0o660] {
            assert_eq!(exposure(owner(), mode, 0o755), None, "{mode:o}");
        }
        for mode in [0o644, 0o604, 0o666] {
            let told = exposure(owner(), mode, 0o755).unwrap();
            assert_eq!(
                told,
                "/duffy's/keys.yaml: every user of this machine can read the API keys in its \
                 `usermap`; type: chmod 600 '/duffy'\\''s/keys.yaml'",
                "{mode:o}"
            );
        }
    }

    #[test]
    fn a_closed_directory_closes_what_is_in_it() {
        assert_eq!(exposure(owner(), 0o644, 0o750), None);
        assert_eq!(exposure(stranger(), 0o640, 0o700), None);
    }

    #[test]
    fn another_group_than_the_services_is_others_too() {
        let group = Group::from_gid(getegid()).unwrap().unwrap().name;
        let told = exposure(stranger(), 0o640, 0o755).unwrap();
        assert!(
            told.contains(&format!("the group {group} can read")),
            "{told}"
        );
        let remedy = told.split_once("type: ").unwrap().1;
        let file = r"'/duffy'\''s/keys.yaml'";
        assert_eq!(remedy, format!("chgrp 4000001 {file} && chmod 640 {file}"));
        let members = Reader {
            group: getegid(),
            ..stranger()
        };
        assert_eq!(exposure(members, 0o640, 0o755), None);
        let told = exposure(members, 0o644, 0o755).unwrap();
        assert!(told.ends_with(&format!("type: chmod 640 {file}")), "{told}");
    }
}
