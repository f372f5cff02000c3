//! Breaks the function library on purpose, one rule at a time, and sees that a test notices.
//!
//! `list.rs` is the list of mutations: what is broken, which text becomes which, and the proof that must fail then: a case of the
//! conformance suite, or one of `proofs.rs` and `rebuilds.rs`, which also run on the library as it is. A mutation that no proof notices fails.

mod list;
mod proofs;
mod rebuilds;

use std::{collections::HashMap, sync::Arc, time::Duration};

use self::list::MUTATIONS;
use futures_util::future::BoxFuture;
use stock::{StockStore, redis::RedisStore};
use testkit::{
    conformance::Subject,
    redis::{Server, connect, wall_clock},
};

/// Far beyond any proof; one that hangs has proven nothing.
const PATIENCE: Duration = Duration::from_secs(20);

/// Something that holds on the library as it is, and not on a mutation of it. Panics where it does not hold.
type Proof = fn(Arc<Bed>) -> BoxFuture<'static, ()>;

/// One rule removed.
struct Mutation {
    /// Which.
    rule: &'static str,
    /// The text that stands for the rule; exactly once in the library.
    from: &'static str,
    /// What stands there without the rule.
    to: &'static str,
    /// What notices: its name, and itself.
    proof: (&'static str, Proof),
}

/// What proofs run on: one private server, emptied between them.
struct Bed {
    server: Server,
    store: Arc<RedisStore>,
    subject: Subject,
}

impl Bed {
    async fn new() -> Self {
        let server = Server::start(&[]);
        let store = Arc::new(connect(&server.url()).await);
        let stock: Arc<dyn StockStore> = store.clone();
        Self {
            server,
            store,
            subject: Subject::new(stock, wall_clock()),
        }
    }

    /// The library that the store has loaded.
    fn library(&self) -> String {
        let list = ["function", "list", "libraryname", "penstock_v3", "withcode"];
        let listed = self.server.cli(&list);
        let (_, code) = listed
            .split_once("library_code\n")
            .expect("the library is loaded");
        code.to_owned()
    }

    fn load(&self, library: &str) {
        let loaded = self.server.cli(&["function", "load", "replace", library]);
        assert_eq!(loaded, "penstock_v3", "a mutation must still be a program");
    }

    /// Puts a text in place of another that the loaded library has once.
    fn patch(&self, from: &str, to: &str) {
        self.load(&replaced(&self.library(), from, to));
    }
}

fn replaced(library: &str, from: &str, to: &str) -> String {
    let places = library.matches(from).count();
    assert_eq!(places, 1, "this text stands {places} times in it: {from}");
    library.replace(from, to)
}

/// Whether a proof holds on a library.
async fn holds(bed: &Arc<Bed>, library: &str, (name, proof): (&str, Proof)) -> bool {
    bed.server.cli(&["flushall"]);
    bed.load(library);
    let running = tokio::spawn(proof(Arc::clone(bed)));
    tokio::time::timeout(PATIENCE, running)
        .await
        .unwrap_or_else(|_| panic!("{name} hangs"))
        .is_ok()
}

#[tokio::test]
async fn a_library_without_any_one_of_its_rules_is_noticed() {
    let bed = Arc::new(Bed::new().await);
    let library = bed.library();
    let mut sound = HashMap::new();
    for Mutation { proof, .. } in MUTATIONS {
        if !sound.contains_key(proof.0) {
            let is_sound = holds(&bed, &library, *proof).await;
            sound.insert(proof.0, is_sound);
        }
    }
    sound.retain(|_, is_sound| !*is_sound);
    assert!(sound.is_empty(), "fail without any mutation: {sound:?}");

    let mut survivors = Vec::new();
    for mutation in MUTATIONS {
        let broken = replaced(&library, mutation.from, mutation.to);
        if holds(&bed, &broken, mutation.proof).await {
            survivors.push((mutation.rule, mutation.proof.0));
        }
    }
    assert!(survivors.is_empty(), "nobody noticed: {survivors:#?}");
}
