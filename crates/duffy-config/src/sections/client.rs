//! `client`: where the command line client finds the web API, and as whom.

use secrecy::SecretString;

use super::decode_http_url;
use crate::decode::{Cursor, Report};

/// The `client` section.
#[derive(Debug, Clone)]
pub struct Client {
    /// Base URL of the API, as written: `http://host:port/api/v1`.
    pub url: String,
    /// The tenant's name.
    pub auth_name: String,
    /// The tenant's API key, a UUID, as written.
    pub auth_key: SecretString,
}

impl Client {
    pub(crate) fn decode(cursor: &Cursor<'_>, report: &mut Report) -> Option<Self> {
        let fields = cursor.fields(report, &["url", "auth"])?;
        let url = fields.read_required(report, "url", decode_http_url);
        let auth = fields.read_required(report, "auth", |auth, report| {
            auth.fields(report, &["name", "key"])
        })?;
        let name = auth.read_required(report, "name", Cursor::owned_text);
        let key = auth.read_required(report, "key", decode_key);
        Some(Self {
            url: url?,
            auth_name: name?,
            auth_key: key?,
        })
    }
}

fn decode_key(cursor: &Cursor<'_>, report: &mut Report) -> Option<SecretString> {
    let text = cursor.text(report)?;
    if uuid::Uuid::try_parse(text).is_err() {
        return cursor.refuse(
            report,
            "must be an API key, a UUID such as 00000000-0000-4000-8000-000000000000",
        );
    }
    Some(SecretString::from(text))
}
