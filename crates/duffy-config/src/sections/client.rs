//! `client`: where the command line client finds the web API, and as whom.

use secrecy::SecretString;

use crate::decode::Cursor;

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
    pub(crate) fn decode(cursor: &Cursor<'_>) -> Option<Self> {
        cursor.section(|fields| {
            let url = fields.read_required("url", Cursor::http_url);
            let auth = fields.require("auth")?;
            auth.section(|auth| {
                let name = auth.read_required("name", Cursor::owned_text);
                let key = auth.read_required("key", decode_key);
                Some(Self {
                    url: url?,
                    auth_name: name?,
                    auth_key: key?,
                })
            })
        })
    }
}

fn decode_key(cursor: &Cursor<'_>) -> Option<SecretString> {
    let text = cursor.text()?;
    if uuid::Uuid::try_parse(text).is_err() {
        return cursor
            .refuse("must be an API key, a UUID such as 00000000-0000-4000-8000-000000000000");
    }
    Some(SecretString::from(text))
}
