//! Finds out whether ssh_config files say anything that concerns Duffy, and for which hosts.
//!
//! What the files mean is left to `ssh -G`. This only saves questions: there is none where the files
//! say nothing that matters, and one for all hosts that match the same `Host` lines.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// How deeply OpenSSH lets files include each other.
const DEPTH_LIMIT: usize = 16;
/// How many files are read at most.
const FILE_LIMIT: usize = 512;

/// The options that change anything for Duffy.
const RELEVANT: [&str; 19] = [
    "addressfamily",
    "bindaddress",
    "bindinterface",
    "canonicaldomains",
    "canonicalizehostname",
    "certificatefile",
    "hostbasedauthentication",
    "hostname",
    "identitiesonly",
    "identityagent",
    "identityfile",
    "pkcs11provider",
    "port",
    "proxycommand",
    "proxyjump",
    "smartcarddevice",
    "tag",
    "user",
    "usekeychain",
];

/// Which hosts are configured alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Class {
    /// The hosts that match and do not match the `Host` lines in this way, in the order of the lines.
    Lines(Vec<bool>),
    /// Only this host.
    Host(String),
}

/// What the files were found to say.
#[derive(Clone, Debug, Default)]
pub(super) struct Survey {
    /// Files and directories that were read, and their stamps then; also those that were missing.
    stamps: Vec<(PathBuf, Option<Stamp>)>,
    /// The patterns of each `Host` line.
    host_lines: Vec<Vec<String>>,
    relevant: bool,
    /// Something depends on the host by more than `Host` lines.
    by_host: bool,
}

/// A file's time of change and size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp(SystemTime, u64);

impl Stamp {
    /// `None` if there is no such file.
    pub fn of(path: &Path) -> Option<Self> {
        let meta = fs::metadata(path).ok()?;
        Some(Self(meta.modified().ok()?, meta.len()))
    }
}

impl Survey {
    /// Reads these files and what they include. Each comes with the directory of its relative paths.
    pub fn of(files: &[(PathBuf, PathBuf)], home: &Path) -> Self {
        let mut survey = Self::default();
        for (file, base) in files {
            survey.read(file, base, home, 0);
        }
        survey
    }

    /// Whether any file has changed since.
    pub fn is_stale(&self) -> bool {
        self.stamps
            .iter()
            .any(|(path, stamp)| Stamp::of(path) != *stamp)
    }

    /// The class of a host. `None` if nothing is configured that matters to Duffy.
    pub fn class_of(&self, host: &str) -> Option<Class> {
        if !self.relevant {
            return None;
        }
        // Only ssh knows whether case matters.
        if self.by_host || host.contains(|c: char| c.is_ascii_uppercase()) {
            return Some(Class::Host(host.to_owned()));
        }
        let fits = |patterns: &Vec<String>| fits_list(host, patterns);
        Some(Class::Lines(self.host_lines.iter().map(fits).collect()))
    }

    fn read(&mut self, file: &Path, base: &Path, home: &Path, depth: usize) {
        if self.stamps.len() >= FILE_LIMIT {
            self.give_up();
            return;
        }
        self.stamps.push((file.to_owned(), Stamp::of(file)));
        let Ok(content) = fs::read(file) else {
            return;
        };
        for line in String::from_utf8_lossy(&content).lines() {
            let mut words = split_words(line).into_iter();
            let Some(keyword) = words.next() else {
                continue;
            };
            let arguments: Vec<String> = words.collect();
            match keyword.to_ascii_lowercase().as_str() {
                "host" => self.host_lines.push(arguments),
                "match" => {
                    let plain = |word: &String| {
                        ["all", "final", "canonical"].contains(&word.to_ascii_lowercase().as_str())
                    };
                    self.by_host |= !arguments.iter().all(plain);
                }
                "include" if depth >= DEPTH_LIMIT => self.by_host = true,
                "include" => {
                    for pattern in &arguments {
                        self.include(pattern, base, home, depth);
                    }
                }
                keyword if RELEVANT.contains(&keyword) => {
                    self.relevant = true;
                    self.by_host |= arguments.iter().any(|word| depends_on_host(word))
                        || keyword.starts_with("canonical");
                }
                _ => {}
            }
        }
    }

    fn include(&mut self, pattern: &str, base: &Path, home: &Path, depth: usize) {
        let pattern = match pattern.strip_prefix("~/") {
            Some(rest) => home.join(rest),
            None => base.join(pattern),
        };
        let name = pattern.file_name().and_then(OsStr::to_str);
        let parts = pattern.parent().zip(name).filter(|(directory, name)| {
            let directory = directory.to_string_lossy();
            !directory.contains(['*', '?', '[', '$', '%']) && !name.contains(['[', '$', '%'])
        });
        let Some((directory, name)) = parts else {
            // More than is expanded here.
            self.give_up();
            return;
        };
        if !name.contains(['*', '?']) {
            self.read(&pattern, base, home, depth + 1);
            return;
        }
        self.stamps
            .push((directory.to_owned(), Stamp::of(directory)));
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = entries
            .filter(|entry| {
                let entry = entry.file_name();
                let entry = entry.to_string_lossy();
                !entry.starts_with('.') && fits(&entry, name)
            })
            .map(|entry| entry.path())
            .collect();
        files.sort();
        for file in files {
            self.read(&file, base, home, depth + 1);
        }
    }

    /// Leaves everything to ssh.
    fn give_up(&mut self) {
        self.relevant = true;
        self.by_host = true;
    }
}

/// Whether a value contains a token that differs from host to host.
fn depends_on_host(value: &str) -> bool {
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        if c == '%' && !matches!(chars.next(), Some('%' | 'd' | 'u' | 'i' | 'l' | 'L')) {
            return true;
        }
    }
    false
}

/// Splits a line into words as OpenSSH does: blanks, one `=` after the keyword, double quotes, comments.
fn split_words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    for c in line.trim().chars() {
        let separates = c.is_whitespace()
            || (c == '=' && (words.is_empty() || (words.len() == 1 && word.is_none())));
        match c {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            _ if quoted => word.get_or_insert_default().push(c),
            '#' if word.is_none() => break,
            _ if separates => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// Whether a host matches a `Host` line: any of its patterns, and none of those with a `!`.
fn fits_list(host: &str, patterns: &[String]) -> bool {
    let mut matching = patterns
        .iter()
        .map(|pattern| (pattern.strip_prefix('!'), pattern))
        .filter(|(negated, pattern)| fits(host, negated.unwrap_or(pattern)))
        .peekable();
    matching.peek().is_some() && matching.all(|(negated, _)| negated.is_none())
}

/// Whether a text matches a pattern with `*` and `?`, in time that grows with their product at most.
fn fits(text: &str, pattern: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    let pattern: Vec<char> = pattern.chars().collect();
    let (mut at, mut next) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while at < text.len() {
        if next < pattern.len() && pattern[next] == '*' {
            star = Some((next, at));
            next += 1;
        } else if next < pattern.len() && (pattern[next] == '?' || pattern[next] == text[at]) {
            next += 1;
            at += 1;
        } else if let Some((behind, from)) = star {
            star = Some((behind, from + 1));
            next = behind + 1;
            at = from + 1;
        } else {
            return false;
        }
    }
    pattern[next..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survey(files: &[(&str, &str)]) -> (tempfile::TempDir, Survey) {
        let directory = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let main = (directory.path().join("config"), directory.path().to_owned());
        let survey = Survey::of(&[main], Path::new("/home/d"));
        (directory, survey)
    }

    #[test]
    fn what_distributions_ship_says_nothing_to_us() {
        let (_directory, survey) = survey(&[
            (
                "config",
                "Include conf.d/*.conf\nHost *\n  SendEnv LANG LC_*\n  HashKnownHosts yes\n",
            ),
            (
                "conf.d/50-redhat.conf",
                "Match final all\n  GSSAPIAuthentication yes\n  Include crypto\n",
            ),
            ("crypto", "Ciphers aes256-gcm@openssh.com\n"),
            ("conf.d/.hidden.conf", "User hidden\n"),
            ("conf.d/other.txt", "User other\n"),
        ]);
        assert_eq!(survey.class_of("node"), None);
        let (_directory, survey) = self::survey(&[]);
        assert_eq!(survey.class_of("node"), None);
    }

    #[test]
    fn hosts_that_the_same_lines_fit_are_of_one_class() {
        let (_directory, survey) = survey(&[(
            "config",
            "Host=gate\n  Port=2200\nHost n?.example.org !n3.* \"10.0.*\"\n\tProxyJump gate\n",
        )]);
        assert_eq!(
            survey.class_of("n1.example.org"),
            survey.class_of("n2.example.org")
        );
        assert_eq!(
            survey.class_of("n1.example.org"),
            survey.class_of("10.0.0.7")
        );
        assert_ne!(
            survey.class_of("n1.example.org"),
            survey.class_of("n3.example.org")
        );
        assert_ne!(survey.class_of("n1.example.org"), survey.class_of("gate"));
        assert_eq!(
            survey.class_of("other"),
            Some(Class::Lines(vec![false, false]))
        );
    }

    #[test]
    fn what_depends_on_more_is_asked_for_each_host() {
        for content in [
            "Match host x\n User y\n",
            "Match exec true\n User y\n",
            "HostName %h.example.org\n",
            "IdentityFile ~/keys/%h\n",
            "Include */nested\n",
            "CanonicalizeHostname yes\n",
        ] {
            let user = format!("User u\n{content}");
            let (_directory, survey) = survey(&[("config", &user)]);
            assert_eq!(
                survey.class_of("n"),
                Some(Class::Host("n".to_owned())),
                "{content}"
            );
        }
        let (_directory, survey) = survey(&[("config", "Match all\nIdentityFile %d/.ssh/x\n")]);
        assert_eq!(survey.class_of("n"), Some(Class::Lines(vec![])));
        assert_eq!(survey.class_of("N"), Some(Class::Host("N".to_owned())));
    }

    #[test]
    fn changes_are_seen_also_where_nothing_was() {
        let (directory, survey) = survey(&[("config", "Include conf.d/*\nInclude later\n")]);
        assert!(!survey.is_stale());
        fs::write(directory.path().join("later"), "User x\n").unwrap();
        assert!(survey.is_stale());
    }

    #[test]
    fn files_that_include_themselves_end() {
        let (_directory, survey) = survey(&[("config", "Include config\nUser x\n")]);
        assert!(survey.class_of("n").is_some());
    }

    #[test]
    fn patterns_fit() {
        for (text, pattern) in [
            ("", "*"),
            ("abc", "a*c"),
            ("abc", "???"),
            ("aXbXc", "*X*X*"),
            ("a", "a**"),
        ] {
            assert!(fits(text, pattern), "{text} {pattern}");
        }
        for (text, pattern) in [("", "?"), ("abc", "a*b"), ("abc", "ab"), ("ab", "abc")] {
            assert!(!fits(text, pattern), "{text} {pattern}");
        }
        assert!(!fits(&"a".repeat(255), &format!("{}b", "a*".repeat(60))));
    }
}
