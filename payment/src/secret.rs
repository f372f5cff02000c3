//! The secret key of the API: a text that is never shown, and the file that it is made in when there is none.

use std::{
    fmt, fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
};

/// What every secret key begins with, as Stripe's do.
pub(crate) const PREFIX: &str = "sk_";

/// The secret key of the API, or where one is to be made.
#[derive(Clone, Debug)]
pub enum ApiKey {
    /// It is there.
    Known(Secret),
    /// The file does not exist yet; [`ApiKey::ensure`] makes it.
    ToCreate(PathBuf),
}

impl ApiKey {
    /// The key; made from `random` and written to its file, readable by its owner only, if it is not there yet.
    pub fn ensure(&self, random: u128) -> io::Result<Secret> {
        let path = match self {
            Self::Known(secret) => return Ok(secret.clone()),
            Self::ToCreate(path) => path,
        };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        // `test`: the only channel is a simulator, and every object says `livemode: false`.
        let key = format!("{PREFIX}test_{random:032x}");
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(key.as_bytes())?;
        file.sync_all()?;
        Ok(Secret::new(key))
    }
}

/// A text that is never shown: its debug form has none of it.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text` to itself.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_has_no_debug_form() {
        assert_eq!(
            format!("{:?}", Secret::new("sk_test_1".into())),
            "Secret(…)"
        );
    }

    #[test]
    fn a_missing_key_is_made_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys/api.key");
        let made = ApiKey::ToCreate(path.clone()).ensure(7).unwrap();
        assert_eq!(made.expose(), format!("sk_test_{:032x}", 7));
        assert_eq!(fs::read_to_string(&path).unwrap(), made.expose());
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        // A key that is there is never replaced.
        assert!(ApiKey::ToCreate(path).ensure(8).is_err());
    }
}
