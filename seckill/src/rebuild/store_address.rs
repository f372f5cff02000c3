//! Where a store is, as the configuration names it: what tells a store that lost its data from another store that never had it.
//!
//! What is in a store cannot tell: both are empty, and a restart gives both a new name of their own. But the one that lost its data is
//! still the one that the nodes were configured with.

use std::{fmt, path::Path};

/// The servers of a Redis, or the folder of an embedded store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreAddress(Vec<String>);

impl StoreAddress {
    /// Of `redis://…` or `redis-cluster://…`, without what does not say where: users, numbers of databases, the order of servers.
    pub fn of_redis(url: &str) -> Self {
        let servers = url.split_once("://").map_or(url, |(_, rest)| rest);
        let servers = servers.rsplit_once('@').map_or(servers, |(_, rest)| rest);
        let servers = servers.split(['/', '?']).next().unwrap_or_default();
        let mut servers: Vec<String> = servers.split(',').map(with_port).collect();
        servers.sort();
        Self(servers)
    }

    /// Of a folder, whole, so that it is the same from anywhere.
    pub fn of_folder(folder: &Path) -> Self {
        let whole = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        Self(vec![whole.display().to_string()])
    }

    /// Whether this may be what was remembered: one server in common is enough, because clusters grow and shrink.
    pub fn may_be(&self, remembered: &str) -> bool {
        // A folder may have a comma in its name.
        remembered == self.to_string()
            || remembered
                .split(',')
                .any(|known| self.0.iter().any(|here| here == known))
    }
}

impl fmt::Display for StoreAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

fn with_port(server: &str) -> String {
    let server = server.trim().to_ascii_lowercase();
    match server.rsplit_once(':') {
        Some((_, port)) if port.parse::<u16>().is_ok() => server,
        _ => format!("{server}:6379"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_its_servers_however_they_are_written() {
        let here =
            StoreAddress::of_redis("redis-cluster://ann@Ten.Example:7000,ten.example,[::1]:7002");
        assert_eq!(
            here.to_string(),
            "[::1]:7002,ten.example:6379,ten.example:7000"
        );
        let grown = StoreAddress::of_redis("redis-cluster://ten.example:7003,ten.example:7000");
        assert!(grown.may_be(&here.to_string()));
        let same = StoreAddress::of_redis("redis://ten.example/0");
        assert!(same.may_be(&here.to_string()));
        for other in ["redis://ten.example:6380", "redis://eleven.example"] {
            assert!(
                !StoreAddress::of_redis(other).may_be(&here.to_string()),
                "{other}"
            );
        }
    }

    #[test]
    fn a_folder_is_the_same_from_anywhere() {
        let here = std::env::current_dir().unwrap().join("data");
        let address = StoreAddress::of_folder(Path::new("data"));
        assert_eq!(address, StoreAddress::of_folder(&here));
        assert!(address.may_be(&here.display().to_string()));
        assert!(!address.may_be("/elsewhere/data"));
        let comma = StoreAddress::of_folder(Path::new("/srv/a,b/data"));
        assert!(comma.may_be(&comma.to_string()));
    }
}
