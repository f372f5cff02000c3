//! The conformance suite on every store.

use stock::embedded::WriteMode;
use testkit::{
    embedded,
    redis::{shared, shared_cluster, subject},
};

testkit::stock_store_conformance!(on_redis, subject(&shared().url()));
testkit::stock_store_conformance!(on_a_redis_cluster, subject(&shared_cluster().url()));
testkit::stock_store_conformance!(on_the_embedded_store, embedded::subject(WriteMode::Auto));
testkit::stock_store_conformance!(
    on_the_embedded_store_without_io_uring,
    embedded::subject(WriteMode::Plain)
);
