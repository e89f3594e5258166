//! Reads CSV dumps of the old Duffy's database: its users and their SSH keys.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use duffy_server::credentials::check_ssh_keys;

use crate::failure::Failure;

/// A tenant that can be imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldTenant {
    pub name: String,
    pub api_key: String,
    /// All of its keys, a line each.
    pub ssh_key: String,
}

/// The content of two dumps.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Dump {
    /// The tenants that can be imported, by name.
    pub tenants: Vec<OldTenant>,
    /// The rows that cannot be imported, and the reasons.
    pub skipped: Vec<String>,
}

/// Reads the users (API key, project, tenant, created, limit) and their keys (id, API key, SSH key).
pub fn read(users_file: &Path, keys_file: &Path) -> Result<Dump, Failure> {
    let mut tenants: BTreeMap<String, OldTenant> = BTreeMap::new();
    let mut names: HashMap<String, String> = HashMap::new();
    for (line, [api_key, _project, name, _created, _limit]) in rows(users_file)? {
        if name.is_empty() || api_key.is_empty() {
            let what = "the tenant's name or API key is empty";
            return Err(wrong(users_file, line, what));
        }
        if names.insert(api_key.clone(), name.clone()).is_some() {
            let what = format!("{name} has another tenant's API key");
            return Err(wrong(users_file, line, &what));
        }
        let tenant = OldTenant {
            name: name.clone(),
            api_key,
            ssh_key: String::new(),
        };
        if tenants.insert(name.clone(), tenant).is_some() {
            let what = format!("the tenant {name} is there twice");
            return Err(wrong(users_file, line, &what));
        }
    }
    let mut dump = Dump::default();
    for (line, [_id, api_key, ssh_key]) in rows(keys_file)? {
        let owner = names.get(&api_key).and_then(|name| tenants.get_mut(name));
        let (Some(tenant), ssh_key) = (owner, ssh_key.trim()) else {
            // The API key itself is a secret.
            let why = wrong(keys_file, line, "no user has this API key");
            dump.skipped.push(why.to_string());
            continue;
        };
        if !tenant.ssh_key.is_empty() && !ssh_key.is_empty() {
            tenant.ssh_key.push('\n');
        }
        tenant.ssh_key.push_str(ssh_key);
    }
    for tenant in tenants.into_values() {
        match why_skipped(&tenant) {
            Some(why) => dump.skipped.push(format!("{}: {why}", tenant.name)),
            None => dump.tenants.push(tenant),
        }
    }
    Ok(dump)
}

/// Reports what is wrong in a line of a file.
fn wrong(file: &Path, line: usize, what: &str) -> Failure {
    Failure::new(format_args!("{}:{line}: {what}", file.display()))
}

fn why_skipped(tenant: &OldTenant) -> Option<String> {
    // The old Duffy's administrators append this to the key of a tenant that they lock out.
    if tenant.api_key.ends_with("DISABLED") {
        return Some("disabled".to_owned());
    }
    if tenant.ssh_key.is_empty() {
        return Some("no SSH key".to_owned());
    }
    if tenant.api_key.len() > 72 || tenant.api_key.contains('\0') {
        return Some("an API key has at most 72 bytes and no NUL".to_owned());
    }
    check_ssh_keys(&tenant.ssh_key)
        .err()
        .map(|error| error.to_string())
}

/// Reads the rows of a file, with the lines at which they begin.
fn rows<const COLUMNS: usize>(file: &Path) -> Result<Vec<(usize, [String; COLUMNS])>, Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::new(format_args!("cannot read {}: {error}", file.display())))?;
    let rows = parse(text.strip_prefix('\u{feff}').unwrap_or(&text))
        .map_err(|line| wrong(file, line, "this quote is not closed"))?;
    let of_columns = |(line, fields): (usize, Vec<String>)| {
        let fields = fields.try_into().map_err(|fields: Vec<String>| {
            let count = fields.len();
            let what = format!("{count} columns, where {COLUMNS} are expected");
            wrong(file, line, &what)
        })?;
        Ok((line, fields))
    };
    rows.into_iter().map(of_columns).collect()
}

/// Reads CSV with commas and single quotes. A doubled quote stands for one. The error is the line of a quote that is not closed.
fn parse(text: &str) -> Result<Vec<(usize, Vec<String>)>, usize> {
    let mut rows = Vec::new();
    let (mut line, mut first_line) = (1, 1);
    let mut fields = Vec::new();
    let mut field = String::new();
    // Whether the field, or the row, has begun.
    let (mut begun, mut row_begun) = (false, false);
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\'' if !begun => {
                let opened = line;
                loop {
                    match characters.next().ok_or(opened)? {
                        '\'' if characters.next_if_eq(&'\'').is_none() => break,
                        inside => {
                            line += usize::from(inside == '\n');
                            field.push(inside);
                        }
                    }
                }
                (begun, row_begun) = (true, true);
            }
            ',' => {
                fields.push(std::mem::take(&mut field));
                (begun, row_begun) = (false, true);
            }
            '\r' if characters.peek() == Some(&'\n') => {}
            '\n' => {
                if row_begun {
                    fields.push(std::mem::take(&mut field));
                    rows.push((first_line, std::mem::take(&mut fields)));
                }
                line += 1;
                first_line = line;
                (begun, row_begun) = (false, false);
            }
            other => {
                field.push(other);
                (begun, row_begun) = (true, true);
            }
        }
    }
    if row_begun {
        fields.push(field);
        rows.push((first_line, fields));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_as_python_reads_them() {
        let row = |line, fields: &[&str]| {
            let fields: Vec<String> = fields.iter().map(ToString::to_string).collect();
            (line, fields)
        };
        assert_eq!(
            parse("'a','it''s','','x\ny, \"z\"'\r\n\nplain,1' 2,'q'tail\n'',"),
            Ok(vec![
                row(1, &["a", "it's", "", "x\ny, \"z\""]),
                row(4, &["plain", "1' 2", "qtail"]),
                row(5, &["", ""]),
            ])
        );
        assert_eq!(parse(""), Ok(vec![]));
        assert_eq!(parse("a\n'b\n\n"), Err(2));
    }

    fn dump(users: &str, keys: &str) -> Result<Dump, String> {
        let dir = tempfile::tempdir().unwrap();
        let (users_file, keys_file) = (dir.path().join("u.csv"), dir.path().join("k.csv"));
        std::fs::write(&users_file, users).unwrap();
        std::fs::write(&keys_file, keys).unwrap();
        read(&users_file, &keys_file)
            .map_err(|failure| failure.to_string().rsplit('/').next().unwrap().to_owned())
    }

    #[test]
    fn keys_find_their_tenants() {
        let users = "'k2','p','b','2015-01-01','5'\n'k1','p','a','2015-01-01','10'\n\
                     'k3DISABLED','p','off','2015-01-01','5'\n'k4','p','bare','2015-01-01','5'\n\
                     'k5','p','odd','2015-01-01','5'\n";
        let keys = "'1','k1',' ssh-rsa ONE \n'\n'2','k2','ssh-rsa TWO'\n'3','k1','ssh-rsa THREE'\n\
                    '4','k3DISABLED','ssh-rsa X'\n'5','k9','ssh-rsa Y'\n'6','k5','a\u{7}b'\n";
        let tenant = |name: &str, api_key: &str, ssh_key: &str| OldTenant {
            name: name.to_owned(),
            api_key: api_key.to_owned(),
            ssh_key: ssh_key.to_owned(),
        };
        let mut found = dump(users, keys).unwrap();
        assert_eq!(
            found.tenants,
            [
                tenant("a", "k1", "ssh-rsa ONE\nssh-rsa THREE"),
                tenant("b", "k2", "ssh-rsa TWO"),
            ]
        );
        let stray = found.skipped.remove(0);
        assert!(
            stray.ends_with("k.csv:6: no user has this API key"),
            "{stray}"
        );
        assert_eq!(
            found.skipped,
            [
                "bare: no SSH key",
                "odd: line 1 of the SSH key has a control character",
                "off: disabled",
            ]
        );
    }

    #[test]
    fn wrong_files_are_refused_with_the_line() {
        for (users, why) in [
            ("'k','p','a'\n", "u.csv:1: 3 columns, where 5 are expected"),
            (
                "'k','p','a','c','1'\n'k','p','b','c','1'\n",
                "u.csv:2: b has another tenant's API key",
            ),
            (
                "'k','p','a','c','1'\n'l','p','a','c','1'\n",
                "u.csv:2: the tenant a is there twice",
            ),
            (
                "\n'k','p','','c','1'\n",
                "u.csv:2: the tenant's name or API key is empty",
            ),
            ("'k','p", "u.csv:1: this quote is not closed"),
        ] {
            assert_eq!(dump(users, ""), Err(why.to_owned()));
        }
    }
}
