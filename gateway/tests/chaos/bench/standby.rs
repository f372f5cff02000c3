//! A standby of the PostgreSQL of the runs, behind a link of its own.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::sync::Mutex;

use super::postgres::{ASKS, Postgres, done};
use crate::{
    process::{Shared, child, child_words, free_port},
    proxy::Proxy,
};

/// A PostgreSQL that follows the one of the runs, without anybody waiting for it.
pub struct Standby {
    /// To its primary.
    pub link: Proxy,
    process: Shared,
    address: SocketAddr,
    data: String,
    server: Arc<Postgres>,
}

impl Standby {
    /// Waits until it has all that its primary has now. It tries to connect every five seconds at first.
    pub async fn has_caught_up(&self) {
        let server = &self.server;
        let now = server.say(server.address, "SELECT pg_current_wal_lsn()");
        let behind = format!("SELECT pg_last_wal_replay_lsn() < '{now}'");
        let mut tries = 0;
        // It listens before it answers.
        while server.try_say(self.address, &behind).as_deref() != Ok("f") {
            tries += 1;
            assert!(tries < ASKS, "the standby does not follow");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Promotes it and stops it; answers how it is started at the address of its primary, which must be dead.
    pub async fn take_over(&self) -> Vec<String> {
        self.server.say(self.address, "SELECT pg_promote()");
        let stop = ["stop", "-w", "-m", "fast", "-D", &self.data];
        done(self.server.program("pg_ctl").args(stop));
        self.process.lock().await.kill();
        let server = &self.server;
        child_words(server.start_words(&self.data, server.address))
    }
}

impl Postgres {
    /// A standby that has all there is now, and follows over a link.
    pub async fn standby(self: &Arc<Self>) -> Standby {
        let link = Proxy::start(self.address).await;
        let number = self.standbys.fetch_add(1, Ordering::Relaxed);
        let data = self.folder.path().join(format!("standby-{number}"));
        let data = data.display().to_string();
        let port = link.address.port().to_string();
        let copy = [
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-U",
            "postgres",
            "-D",
            &data,
        ];
        let mut copying = self.program("pg_basebackup");
        copying.args(copy).args(["-R", "-c", "fast", "--no-sync"]);
        // The proxy runs on this thread's runtime.
        let copied = tokio::task::spawn_blocking(move || done(&mut copying));
        copied.await.unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let log = self.folder.path().join("standby.log");
        let process = child(self.start_words(&data, address), log, address).await;
        Standby {
            link,
            process: Arc::new(Mutex::new(process)),
            address,
            data,
            server: Arc::clone(self),
        }
    }
}
