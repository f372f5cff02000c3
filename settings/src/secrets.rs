//! Files that keys name, and secrets, which stand in a file or in an environment variable and never in the configuration.

use std::path::Path;

use crate::{Inputs, Problem, Section, shown::shown_path};

impl Section<'_> {
    /// The content of the file that a key names.
    pub fn file(&self, key: &str, inputs: &Inputs<'_>) -> Option<Vec<u8>> {
        let path = self.text(key)?;
        match (inputs.read)(Path::new(&path)) {
            Ok(content) => Some(content),
            Err(error) => {
                self.problems().add(Problem {
                    key: self.key(key),
                    value: shown_path(&path),
                    what: format!("cannot be read: {error}"),
                });
                None
            }
        }
    }

    /// The secret in the file of `KEY_file` or in the variable of `KEY_env`, without the white space around it. Neither is no secret;
    /// both, an empty one and one of fewer than `least` bytes are problems. The secret itself is in no message.
    pub fn secret(&self, key: &str, least: usize, inputs: &Inputs<'_>) -> Option<Vec<u8>> {
        let (file, env) = (format!("{key}_file"), format!("{key}_env"));
        let (place, found) = match (self.value(&file), self.value(&env)) {
            (None, None) => return None,
            (Some(_), Some(_)) => {
                self.problem(
                    key,
                    format_args!("must be given once, by {file} or by {env}"),
                );
                return None;
            }
            (Some(_), None) => (&file, self.file(&file, inputs)?),
            (None, Some(_)) => {
                let name = self.text(&env)?;
                let value = (inputs.env)(&name).unwrap_or_default();
                (&env, value.into_bytes())
            }
        };
        let secret = found.trim_ascii();
        if secret.is_empty() {
            self.problem(
                place,
                "must name the place of the secret, and that is empty or not set",
            );
            return None;
        }
        if secret.len() < least {
            self.problem(
                place,
                format_args!("must hold a secret of at least {least} bytes"),
            );
            return None;
        }
        Some(secret.to_vec())
    }

    /// Notes what is wrong with a secret that was read, under the key that names its place.
    pub fn bad_secret(&self, key: &str, what: impl std::fmt::Display) {
        let (file, env) = (format!("{key}_file"), format!("{key}_env"));
        self.problem(if self.has(&env) { &env } else { &file }, what);
    }

    /// Notes that neither `KEY_file` nor `KEY_env` is there.
    pub fn require_secret(&self, key: &str) {
        let (file, env) = (format!("{key}_file"), format!("{key}_env"));
        if self.value(&file).is_none() && self.value(&env).is_none() {
            self.missing(
                &file,
                format_args!("the file of the secret (or {env} its variable)"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{Inputs, Problems, Section};

    fn secret(text: &str) -> (Option<Vec<u8>>, Vec<String>) {
        let inputs = Inputs {
            read: &|path| match path.to_str() {
                Some("./p") => Ok(b" from a file \n".to_vec()),
                _ => Err(std::io::ErrorKind::NotFound.into()),
            },
            env: &|name| match name {
                "SET" => Some("from a variable\n".to_owned()),
                "SHORT" => Some("hunter2".to_owned()),
                _ => None,
            },
            ..Inputs::none()
        };
        let problems = Problems::default();
        let section = Section::root(text.parse().unwrap(), &problems);
        let found = section.secret("password", 8, &inputs);
        section.finish();
        (found, problems.into_lines())
    }

    #[test]
    fn a_secret_comes_from_a_file_or_a_variable() {
        let none: [&str; 0] = [];
        let (found, told) = secret("password_file = './p'");
        assert_eq!(
            (found.as_deref(), told),
            (Some(&b"from a file"[..]), none.map(String::from).to_vec())
        );
        let (found, _) = secret("password_env = 'SET'");
        assert_eq!(found.as_deref(), Some(&b"from a variable"[..]));
        assert_eq!(secret(""), (None, Vec::new()));
    }

    #[test]
    fn a_secret_that_is_none_is_told_without_it() {
        for (text, problem) in [
            (
                "password_file = './p'\npassword_env = 'SET'",
                "password: must be given once, by password_file or by password_env",
            ),
            (
                "password_file = './q'",
                "password_file = \"./q\": cannot be read: entity not found",
            ),
            (
                "password_file = 'hunter2'",
                "password_file: cannot be read: entity not found",
            ),
            (
                "password_env = 'UNSET'",
                "password_env = \"UNSET\": must name the place of the secret, and that is empty or not set",
            ),
            (
                "password_env = 'SHORT'",
                "password_env = \"SHORT\": must hold a secret of at least 8 bytes",
            ),
            (
                "password = 'hunter2'",
                "password: unknown key: must be one of password_env, password_file",
            ),
        ] {
            let (found, told) = secret(text);
            assert_eq!(found, None, "{text}");
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(told[0].starts_with(problem), "{told:?}");
        }
    }
}
