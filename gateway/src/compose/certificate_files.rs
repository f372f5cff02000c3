//! Looks at the files of the certificates in force, and tells of those that were changed: only a reload puts them in force, and one that
//! cannot be read must be known before the old one ends.

use std::{collections::HashMap, io, path::Path, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tracing::{error, warn};

use crate::{
    cores::Plan,
    tls::{Certificate, Store},
};

/// What is wrong is told after two looks: within half a minute.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// How a certificate's files differ from what is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Difference {
    /// They hold another certificate.
    Changed,
    /// They hold none that can be used.
    Unusable(String),
}

/// Looks for as long as it is polled.
pub(super) async fn watch(plans: watch::Receiver<Arc<Plan>>, stores: Vec<Option<Arc<Store>>>) {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looks = Looks::default();
    loop {
        ticks.tick().await;
        let (plan, stores) = (Arc::clone(&plans.borrow()), stores.clone());
        let look = move || differences(&plan.config.source, &stores);
        let Ok(found) = tokio::task::spawn_blocking(look).await else {
            continue;
        };
        for (file, difference) in looks.news(found) {
            match difference {
                Difference::Changed => {
                    warn!(%file, "a certificate was changed and is not in force: penstock reload puts it there");
                }
                Difference::Unusable(why) => {
                    error!(%file, error = why, "a certificate was changed and cannot be used; the one before stays in force");
                }
            }
        }
    }
}

/// What the looks so far have found.
#[derive(Default)]
struct Looks {
    /// By file: what the last look found, and whether that was told.
    last: HashMap<String, (Difference, bool)>,
}

impl Looks {
    /// What is to be told: what two looks in a row have found, once. Certificate and key are two files, and one of them may not be
    /// replaced yet.
    fn news(&mut self, found: Vec<(String, Difference)>) -> Vec<(String, Difference)> {
        let mut news = Vec::new();
        let mut next = HashMap::with_capacity(found.len());
        for (file, difference) in found {
            let before = self.last.get(&file).filter(|(was, _)| *was == difference);
            if before.is_some_and(|(_, is_told)| !is_told) {
                news.push((file.clone(), difference.clone()));
            }
            next.insert(file, (difference, before.is_some()));
        }
        self.last = next;
        news
    }
}

/// The files, by the certificate's, that differ from what is in force.
fn differences(source: &toml::Table, stores: &[Option<Arc<Store>>]) -> Vec<(String, Difference)> {
    let listeners = source.get("listener").and_then(toml::Value::as_array);
    let listeners = listeners.into_iter().flatten().zip(stores);
    let mut found = Vec::new();
    for (listener, store) in listeners {
        let files = listener.get("tls").and_then(toml::Value::as_array);
        let (Some(files), Some(store)) = (files, store) else {
            continue;
        };
        for (files, in_force) in files.iter().zip(store.all().iter()) {
            let path = |key| files.get(key).and_then(toml::Value::as_str);
            let (Some(cert), Some(key)) = (path("cert"), path("key")) else {
                continue;
            };
            let names = files.get("names").and_then(toml::Value::as_array);
            let names = names.into_iter().flatten().filter_map(toml::Value::as_str);
            let names = names.map(str::to_owned).collect();
            let difference = match read(cert.as_ref(), key.as_ref()) {
                Err(error) => Difference::Unusable(error.to_string()),
                Ok((cert, key)) => match Certificate::try_from_pem(&cert, &key, names) {
                    Err(error) => Difference::Unusable(error.to_string()),
                    Ok(read) if read.is_same_as(in_force) => continue,
                    Ok(_) => Difference::Changed,
                },
            };
            found.push((cert.to_owned(), difference));
        }
    }
    found
}

fn read(cert: &Path, key: &Path) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let read = |path: &Path| {
        let with_path = |error| io::Error::other(format!("{}: {error}", path.display()));
        std::fs::read(path).map_err(with_path)
    };
    Ok((read(cert)?, read(key)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path) -> (Vec<u8>, Vec<u8>) {
        let made = rcgen::generate_simple_self_signed(vec!["shop.example".to_owned()]).unwrap();
        let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        std::fs::write(folder.join("shop.pem"), &cert).unwrap();
        std::fs::write(folder.join("shop.key"), &key).unwrap();
        (cert.into_bytes(), key.into_bytes())
    }

    #[test]
    fn files_that_differ_from_what_is_in_force_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let (cert, key) = write(folder.path());
        let certificate = Certificate::try_from_pem(&cert, &key, Vec::new()).unwrap();
        let stores = [
            None,
            Some(Arc::new(Store::new(vec![Arc::new(certificate)]))),
        ];
        let source = format!(
            "[[listener]]\naddress = \"127.0.0.1:0\"\n[[listener]]\ntls = [{{ cert = {:?}, key = {:?} }}]",
            path("shop.pem"),
            path("shop.key"),
        );
        let source: toml::Table = source.parse().unwrap();
        let look = || differences(&source, &stores);
        assert_eq!(look(), []);
        let is_unusable =
            |found: &[(String, Difference)]| matches!(found, [(_, Difference::Unusable(_))]);

        // Whole again, with a key of another certificate.
        std::fs::write(path("shop.pem"), "no PEM").unwrap();
        assert!(is_unusable(&look()), "{:?}", look());
        std::fs::write(path("shop.pem"), &cert).unwrap();
        assert_eq!(look(), []);
        let other = tempfile::tempdir().unwrap();
        std::fs::write(path("shop.key"), write(other.path()).1).unwrap();
        assert!(is_unusable(&look()), "{:?}", look());
        std::fs::remove_file(path("shop.key")).unwrap();
        assert!(is_unusable(&look()), "{:?}", look());

        let name = path("shop.pem").display().to_string();
        write(folder.path());
        assert_eq!(look(), [(name, Difference::Changed)]);
    }

    #[test]
    fn what_lasts_is_told_once_and_what_passes_is_not() {
        let mut looks = Looks::default();
        let one = |difference: &Difference| vec![("shop.pem".to_owned(), difference.clone())];
        let half = Difference::Unusable("no pair".to_owned());
        assert_eq!(looks.news(one(&half)), []);
        assert_eq!(looks.news(one(&Difference::Changed)), [], "it was half way");
        assert_eq!(
            looks.news(one(&Difference::Changed)),
            one(&Difference::Changed)
        );
        assert_eq!(looks.news(one(&Difference::Changed)), [], "told before");
        assert_eq!(looks.news(Vec::new()), [], "reloaded");
        assert_eq!(looks.news(one(&half)), []);
        assert_eq!(looks.news(one(&half)), one(&half), "the next time");
    }
}
