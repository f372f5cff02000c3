//! The conformance suite on every store.

use seckill::store::embedded::Method;

use crate::support::{
    embedded,
    redis::{shared, shared_cluster, subject},
};

seckill::stock_store_conformance!(on_redis, subject(&shared().url()));
seckill::stock_store_conformance!(on_a_redis_cluster, subject(&shared_cluster().url()));
seckill::stock_store_conformance!(on_the_embedded_store, embedded::subject(Method::Auto));
seckill::stock_store_conformance!(
    on_the_embedded_store_without_io_uring,
    embedded::subject(Method::Plain)
);
