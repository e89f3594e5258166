//! Finds and reads the files of the configuration.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::error::{ConfigError, Problem};
use crate::merge::merge;
use crate::yaml::{self, Data, Map};

/// Far more than any configuration needs.
const MAX_FILE_SIZE: u64 = 16 << 20;

/// Returns the default paths of the configuration: `/etc/duffy`, then `duffy` in the user's configuration directory.
/// Each can be a file or a directory, or missing.
pub fn default_paths() -> Vec<PathBuf> {
    let named = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let user = named("XDG_CONFIG_HOME").or_else(|| named("HOME").map(|home| home.join(".config")));
    std::iter::once(PathBuf::from("/etc/duffy"))
        .chain(user.map(|directory| directory.join("duffy")))
        .collect()
}

fn unreadable(path: &Path, source: std::io::Error) -> ConfigError {
    ConfigError::Unreadable {
        path: path.to_owned(),
        source,
    }
}

/// Returns the files of these paths, in order. A directory means its `*.yaml` and `*.yml` files, sorted by name.
pub(crate) fn expand(paths: &[PathBuf]) -> Result<Vec<PathBuf>, ConfigError> {
    let mut files = Vec::new();
    for path in paths {
        let metadata = std::fs::metadata(path).map_err(|error| unreadable(path, error))?;
        if !metadata.is_dir() {
            files.push(path.clone());
            continue;
        }
        let mut found = Vec::new();
        for entry in std::fs::read_dir(path).map_err(|error| unreadable(path, error))? {
            let file = entry.map_err(|error| unreadable(path, error))?.path();
            let name = file
                .file_name()
                .map(OsStr::as_encoded_bytes)
                .unwrap_or_default();
            if name.ends_with(b".yaml") || name.ends_with(b".yml") {
                found.push(file);
            }
        }
        found.sort();
        files.append(&mut found);
    }
    Ok(files)
}

/// Merges all documents of all files in order. Returns warnings too.
pub(crate) fn read(files: &[PathBuf]) -> Result<(Map, Vec<String>), ConfigError> {
    let mut merged = Map::new();
    let mut warnings = Vec::new();
    for file in files {
        let text = read_text(file)?;
        let name = file.display().to_string();
        warnings.append(&mut merge_text(&mut merged, &text, &name)?);
    }
    Ok((merged, warnings))
}

/// Merges all documents of a text in order. Returns warnings.
pub(crate) fn merge_text(
    merged: &mut Map,
    text: &str,
    file: &str,
) -> Result<Vec<String>, ConfigError> {
    let (documents, odd) = yaml::parse_nodes(text, file)?;
    for document in documents {
        match &document.data {
            Data::Map(map) => merge(merged, map, "")?,
            _ if document.is_empty() => {}
            _ => {
                let message = format!(
                    "a document must be a mapping of sections such as app: or nodepools:, not {}",
                    document.describe()
                );
                return Err(ConfigError::from(Problem {
                    mark: Some(document.mark),
                    path: String::new(),
                    message,
                }));
            }
        }
    }
    Ok(odd)
}

fn read_text(file: &Path) -> Result<String, ConfigError> {
    use std::io::Read as _;

    let handle = std::fs::File::open(file).map_err(|error| unreadable(file, error))?;
    // The file may be a device: read at most the limit, independent of the file's size.
    let mut bytes = Vec::new();
    handle
        .take(MAX_FILE_SIZE + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(file, error))?;
    if bytes.len() as u64 > MAX_FILE_SIZE {
        let size = std::fs::metadata(file).map_or(0, |metadata| metadata.len());
        return Err(ConfigError::TooLarge {
            path: file.to_owned(),
            size,
            limit: MAX_FILE_SIZE,
        });
    }
    String::from_utf8(bytes).map_err(|error| {
        let line = error.as_bytes()[..error.utf8_error().valid_up_to()]
            .iter()
            .fold(0, |lines, byte| lines + usize::from(*byte == b'\n'));
        ConfigError::Yaml(crate::error::YamlError {
            mark: crate::error::Mark {
                file: file.display().to_string().into(),
                line: line + 1,
                column: 1,
            },
            message: "this line is not UTF-8; save the file in that encoding".into(),
        })
    })
}
