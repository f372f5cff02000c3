//! The user of a broker and the password, which stands in a file or in the environment.

use std::fmt;

use settings::{Inputs, Section};

/// A user of a broker.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Its name.
    pub username: String,
    /// Its password.
    pub password: String,
}

impl fmt::Debug for Credentials {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// The user, if one is named. `None` after a problem.
pub(super) fn credentials(
    section: &Section<'_>,
    inputs: &Inputs<'_>,
) -> Option<Option<Credentials>> {
    let username = section.text("username");
    let has_password = section.has("password_file") || section.has("password_env");
    let password = section.secret("password", 1, inputs);
    match (username, has_password) {
        (None, false) => Some(None),
        (Some(username), true) => Some(Some(Credentials {
            username,
            password: text(password?),
        })),
        _ => {
            section.problem(
                "username",
                "needs both username and password_file (or password_env)",
            );
            None
        }
    }
}

/// A secret that goes over the wire as text.
pub(super) fn text(secret: Vec<u8>) -> String {
    String::from_utf8_lossy(&secret).into_owned()
}
