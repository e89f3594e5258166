//! Machines as directories: their names, addresses and keys, which survive a restart.
//!
//! ```text
//! <directory>/lock               held while a process serves the machines
//! <directory>/next-address       where the search for a free address begins
//! <directory>/<name>/machine.json
//! <directory>/<name>/host_key    the SSH server's private key
//! <directory>/<name>/dead        exists if the machine has died
//! <directory>/<name>/root/       home directory of the machine's root
//! ```

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rand::RngExt;
use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey};
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;

use crate::SimError;

/// Machines listen on this port if it is free, otherwise on a port that the system chooses.
const USUAL_PORT: u16 = 2222;
/// Machines have addresses from 127.64.0.0 to 127.127.255.255, which few other programs use.
const FIRST_ADDRESS: u32 = 0x7f40_0000;
const ADDRESSES: u32 = 0x0040_0000;
/// Names of half-made and half-removed machines begin with this; no machine's name does.
const SCRATCH_PREFIX: &str = ".scratch-";

/// A machine, and how to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Its name, as given at creation.
    pub name: String,
    /// Its address, unique in its cloud.
    pub ipaddr: IpAddr,
    /// The port of its SSH server.
    pub ssh_port: u16,
    /// The public host key of its SSH server, as one line in OpenSSH's format.
    pub host_key: String,
}

/// A machine with what only its own server needs.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub machine: Machine,
    pub directory: PathBuf,
    pub host_key: PrivateKey,
}

impl Record {
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.machine.ipaddr, self.machine.ssh_port)
    }

    pub fn home(&self) -> PathBuf {
        self.directory.join("root")
    }

    /// Whether the machine has died.
    pub fn is_dead(&self) -> bool {
        self.directory.join("dead").exists()
    }

    /// Records that the machine has died.
    pub fn mark_dead(&self) -> Result<(), SimError> {
        write_private(&self.directory.join("dead"), b"")
    }

    /// Listens on the machine's address, even if earlier connections have not ended. Must be called on a Tokio runtime.
    pub fn listen(&self) -> Result<TcpListener, SimError> {
        listen(self.address()).map_err(|source| SimError::Listen {
            name: self.machine.name.clone(),
            address: self.address(),
            source,
        })
    }
}

/// The content of `machine.json`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    ipaddr: IpAddr,
    ssh_port: u16,
}

/// Returns the names of the machines in a directory, whether a process serves it or not; none if the directory is missing.
///
/// # Errors
/// The directory cannot be read.
pub fn list_machines(directory: &Path) -> Result<Vec<String>, SimError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(SimError::file("read", directory)(error)),
    };
    let names = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| check_name(name).is_ok())
        .filter(|name| directory.join(name).join("machine.json").exists());
    Ok(names.collect())
}

/// The directory of a cloud. All functions block on the file system.
#[derive(Debug)]
pub(crate) struct Store {
    directory: PathBuf,
    admin_keys: Vec<String>,
    /// Locked until the store is dropped.
    _lock: File,
}

impl Store {
    pub fn open(directory: &Path, admin_keys: Vec<String>) -> Result<Self, SimError> {
        fs::create_dir_all(directory).map_err(SimError::file("make directory", directory))?;
        let directory =
            fs::canonicalize(directory).map_err(SimError::file("find directory", directory))?;
        let path = directory.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(SimError::file("open", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(SimError::InUse(directory)),
            Err(TryLockError::Error(error)) => return Err(SimError::file("lock", &path)(error)),
        }
        Ok(Self {
            directory,
            admin_keys,
            _lock: lock,
        })
    }

    /// Reads the machines that exist, and removes what a killed process left half done.
    pub fn load(&self) -> Result<Vec<Record>, SimError> {
        let entries =
            fs::read_dir(&self.directory).map_err(SimError::file("read", &self.directory))?;
        for entry in entries {
            let entry = entry.map_err(SimError::file("read", &self.directory))?;
            let name = entry.file_name();
            if name
                .as_encoded_bytes()
                .starts_with(SCRATCH_PREFIX.as_bytes())
            {
                remove_tree(&entry.path())?;
            }
        }
        let names = list_machines(&self.directory)?;
        names.iter().map(|name| self.read(name)).collect()
    }

    fn read(&self, name: &str) -> Result<Record, SimError> {
        let directory = self.directory.join(name);
        let path = directory.join("machine.json");
        let text = fs::read_to_string(&path).map_err(SimError::file("read", &path))?;
        let Description { ipaddr, ssh_port } =
            serde_json::from_str(&text).map_err(|error| SimError::damaged(path, &error))?;
        let path = directory.join("host_key");
        let text = fs::read_to_string(&path).map_err(SimError::file("read", &path))?;
        let host_key =
            PrivateKey::from_openssh(&text).map_err(|error| SimError::damaged(path, &error))?;
        let address = SocketAddr::new(ipaddr, ssh_port);
        record(name, directory, address, host_key)
    }

    /// Makes a machine on a free address, with Duffy's own keys in its `authorized_keys`.
    ///
    /// Addresses for which `is_taken` is true are not used. Returns the socket that the machine is bound to, too. Must be called on a Tokio runtime.
    pub fn create(
        &self,
        name: &str,
        is_taken: impl Fn(IpAddr) -> bool,
    ) -> Result<(Record, TcpListener), SimError> {
        check_name(name)?;
        let (listener, address) = self.take_address(name, is_taken)?;
        let host_key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519)
            .map_err(|error| SimError::Key(error.to_string()))?;

        // Made elsewhere and renamed, so that a machine exists completely or not at all.
        let scratch = self.scratch();
        let ssh = scratch.join("root/.ssh");
        fs::create_dir_all(&ssh).map_err(SimError::file("make directory", &ssh))?;
        for private in [&scratch.join("root"), &ssh] {
            fs::set_permissions(private, fs::Permissions::from_mode(0o700))
                .map_err(SimError::file("set permissions", private))?;
        }
        let mut keys = String::new();
        for key in &self.admin_keys {
            keys.push_str(key.trim_end());
            keys.push('\n');
        }
        write_private(&ssh.join("authorized_keys"), keys.as_bytes())?;
        let text = host_key
            .to_openssh(LineEnding::LF)
            .map_err(|error| SimError::Key(error.to_string()))?;
        write_private(&scratch.join("host_key"), text.as_bytes())?;
        let description = json!({"ipaddr": address.ip(), "ssh_port": address.port()});
        write_private(
            &scratch.join("machine.json"),
            description.to_string().as_bytes(),
        )?;

        let directory = self.directory.join(name);
        if directory.exists() {
            // Machines are complete when they appear, so this is something else.
            remove_tree(&scratch)?;
            return Err(SimError::damaged(directory, &"exists and is not a machine"));
        }
        fs::rename(&scratch, &directory).map_err(SimError::file("make", &directory))?;
        Ok((record(name, directory, address, host_key)?, listener))
    }

    /// Removes a machine's directory. The machine no longer exists after the first step.
    pub fn remove(&self, name: &str) -> Result<(), SimError> {
        check_name(name)?;
        let directory = self.directory.join(name);
        let scratch = self.scratch();
        match fs::rename(&directory, &scratch) {
            Ok(()) => remove_tree(&scratch),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(SimError::file("remove", &directory)(error)),
        }
    }

    fn scratch(&self) -> PathBuf {
        let random: u64 = rand::rng().random();
        self.directory
            .join(format!("{SCRATCH_PREFIX}{random:016x}"))
    }

    /// Finds a free address. The search begins after the last assigned address, because a node that is
    /// being retired may still have the address of a machine that is already gone. The very first
    /// address is random, so that the clouds of several processes rarely collide.
    fn take_address(
        &self,
        name: &str,
        is_taken: impl Fn(IpAddr) -> bool,
    ) -> Result<(TcpListener, SocketAddr), SimError> {
        let path = self.directory.join("next-address");
        let mut index = fs::read_to_string(&path)
            .ok()
            .and_then(|text| text.trim().parse::<u32>().ok())
            .unwrap_or_else(|| rand::rng().random())
            % ADDRESSES;
        for _ in 0..ADDRESSES {
            let ipaddr = Ipv4Addr::from(FIRST_ADDRESS + index);
            index = (index + 1) % ADDRESSES;
            if matches!(ipaddr.octets()[3], 0 | 255) || is_taken(IpAddr::V4(ipaddr)) {
                continue;
            }
            let usual = SocketAddr::from((ipaddr, USUAL_PORT));
            let listener = listen(usual).or_else(|_| listen(SocketAddr::from((ipaddr, 0))));
            let refused = |source| SimError::Listen {
                name: name.to_owned(),
                address: usual,
                source,
            };
            let listener = listener.map_err(refused)?;
            let address = listener.local_addr().map_err(refused)?;
            write_private(&path, index.to_string().as_bytes())?;
            return Ok((listener, address));
        }
        Err(SimError::Full)
    }
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

fn record(
    name: &str,
    directory: PathBuf,
    address: SocketAddr,
    host_key: PrivateKey,
) -> Result<Record, SimError> {
    let public = host_key
        .public_key()
        .to_openssh()
        .map_err(|error| SimError::Key(error.to_string()))?;
    Ok(Record {
        machine: Machine {
            name: name.to_owned(),
            ipaddr: address.ip(),
            ssh_port: address.port(),
            host_key: public.trim().to_owned(),
        },
        directory,
        host_key,
    })
}

/// Checks a machine's name: it is a host name and the name of a directory, which must be inside the cloud.
fn check_name(name: &str) -> Result<(), SimError> {
    let good = (1..=128).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
        && !matches!(name, "lock" | "next-address");
    good.then_some(())
        .ok_or_else(|| SimError::Name(name.to_owned()))
}

fn write_private(path: &Path, content: &[u8]) -> Result<(), SimError> {
    File::options()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(content))
        .map_err(SimError::file("write", path))
}

/// Removes a directory tree, even if the machine's user has removed the permissions of directories.
fn remove_tree(path: &Path) -> Result<(), SimError> {
    if fs::remove_dir_all(path).is_ok() {
        return Ok(());
    }
    open_directories(path);
    fs::remove_dir_all(path).map_err(SimError::file("remove", path))
}

fn open_directories(path: &Path) {
    // A directory that cannot be changed causes an error of the removal.
    let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o700));
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_directories(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_the_directory_are_refused() {
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "/etc",
            "-rf",
            ".scratch-1",
            "a b",
            "ä",
            "lock",
        ] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        assert!(check_name(&"a".repeat(129)).is_err());
        for name in ["a", "node-1.example.org", "9_x"] {
            assert!(check_name(name).is_ok(), "{name:?}");
        }
    }

    #[tokio::test]
    async fn what_a_killed_process_left_is_removed_and_strangers_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path(), Vec::new()).unwrap();
        store.create("one", |_| false).unwrap();
        let scratch = directory.path().join(".scratch-0000000000000001");
        fs::create_dir_all(scratch.join("root/closed")).unwrap();
        fs::set_permissions(scratch.join("root/closed"), fs::Permissions::from_mode(0o0)).unwrap();
        fs::create_dir(directory.path().join("stranger")).unwrap();
        let records = store.load().unwrap();
        assert_eq!(records.len(), 1);
        assert_eq!(records[0].machine.name, "one");
        assert!(!scratch.exists());
        assert!(directory.path().join("stranger").exists());
    }

    #[tokio::test]
    async fn addresses_are_not_given_out_again_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path(), Vec::new()).unwrap();
        let (first, _) = store.create("one", |_| false).unwrap();
        store.remove("one").unwrap();
        let (second, _) = store.create("one", |_| false).unwrap();
        assert_ne!(first.machine.ipaddr, second.machine.ipaddr);
        assert_ne!(first.machine.host_key, second.machine.host_key);
    }

    #[test]
    fn a_directory_serves_one_process() {
        let directory = tempfile::tempdir().unwrap();
        let _first = Store::open(directory.path(), Vec::new()).unwrap();
        let second = Store::open(directory.path(), Vec::new());
        assert!(matches!(second, Err(SimError::InUse(_))), "{second:?}");
    }

    #[tokio::test]
    async fn a_damaged_machine_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path(), Vec::new()).unwrap();
        let (record, _) = store.create("one", |_| false).unwrap();
        fs::write(record.directory.join("machine.json"), "{").unwrap();
        let error = store.load().unwrap_err().to_string();
        assert!(error.contains("one/machine.json"), "{error}");
    }
}
