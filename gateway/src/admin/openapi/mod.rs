//! The sale API and the admin API as OpenAPI 3.1 documents, made from tables: the operations (`sale`, `admin`), the shapes
//! (`schemas`), and the codes of refusals with the statuses that the code itself gives them.
//!
//! `penstock openapi` prints them, the admin listener serves them, `docs/openapi/` keeps them. Tests hold the tables against the routers,
//! both ways, and the shapes against real answers.

mod admin;
mod sale;
mod schemas;

use axum::{Json, Router, routing};
use seckill::api::problem::Code;
use serde_json::{Map, Value, json};

/// Which API a document describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Api {
    /// What buyers and shops call.
    Sale,
    /// What operators call.
    Admin,
}

/// One row of a table.
struct Operation {
    method: &'static str,
    path: &'static str,
    /// Its name in generated clients.
    id: &'static str,
    summary: &'static str,
    /// Query parameters and headers, as `in name type`, with a `?` after the name of one that may be left out.
    parameters: &'static [&'static str],
    /// The shape of the body.
    body: Option<&'static str>,
    /// Successful answers: status, shape (empty for none), what it means.
    answers: &'static [(u16, &'static str, &'static str)],
    /// The codes it may be refused with, beside those of every operation of its API.
    refusals: &'static [&'static str],
    /// Whether the caller has to be known.
    is_open: bool,
}

impl Api {
    /// The document.
    pub fn document(self) -> Value {
        let (title, description, operations, common) = match self {
            Self::Sale => (
                "Penstock sale API",
                "What a shop's pages and servers call to sell: docs/sale-api.md, docs/integrate.md.",
                sale::OPERATIONS,
                sale::COMMON,
            ),
            Self::Admin => (
                "Penstock admin API",
                "What operators call, on the admin listener: docs/operating/README.md.",
                admin::OPERATIONS,
                admin::COMMON,
            ),
        };
        let mut paths = Map::new();
        for operation in operations {
            let path = paths.entry(operation.path).or_insert_with(|| json!({}));
            path[operation.method] = operation.document(common);
        }
        let security = match self {
            Self::Sale => json!({
                "buyerHeader": { "type": "apiKey", "in": "header", "name": "x-buyer-id",
                    "description": "The header of [seckill] buyer = \"header:…\", from hops in server.trusted_headers_from." },
                "buyerToken": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT",
                    "description": "[seckill] buyer = \"jwt:sub\"." },
            }),
            Self::Admin => json!({
                "adminToken": { "type": "http", "scheme": "bearer", "description": "[admin] token_file, if one is set." },
            }),
        };
        json!({
            "openapi": "3.1.0",
            "info": {
                "title": title,
                "version": env!("CARGO_PKG_VERSION"),
                "description": description,
                "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
            },
            "paths": paths,
            "components": { "schemas": schemas::document(), "securitySchemes": security },
        })
    }
}

impl Operation {
    fn document(&self, common: &[&str]) -> Value {
        let mut responses = Map::new();
        for (status, shape, meaning) in self.answers {
            let mut response = json!({ "description": meaning });
            match *shape {
                "" => {}
                "text" => {
                    response["content"] =
                        json!({ "text/plain": { "schema": { "type": "string" } } })
                }
                "events" => {
                    response["content"] =
                        json!({ "text/event-stream": { "schema": { "type": "string" } } });
                }
                shape => {
                    response["content"] =
                        json!({ "application/json": { "schema": schemas::of(shape) } })
                }
            }
            responses.insert(status.to_string(), response);
        }
        for (status, codes) in by_status(common.iter().chain(self.refusals).copied()) {
            responses.insert(status.to_string(), refusal(&codes));
        }
        let mut document = json!({
            "operationId": self.id,
            "summary": self.summary,
            "parameters": self.parameters(),
            "responses": responses,
        });
        if let Some(shape) = self.body {
            document["requestBody"] = json!({
                "required": !shape.ends_with('?'),
                "content": { "application/json": { "schema": schemas::of(shape.trim_end_matches('?')) } },
            });
        }
        document["security"] = match (self.is_open, self.path.starts_with("/admin/")) {
            (true, _) => json!([]),
            (false, true) => json!([{ "adminToken": [] }, {}]),
            (false, false) => json!([{ "buyerHeader": [] }, { "buyerToken": [] }]),
        };
        document
    }

    fn parameters(&self) -> Vec<Value> {
        let in_path = self.path.split('/').filter_map(|segment| {
            let name = segment.strip_prefix('{')?.strip_suffix('}')?;
            Some(json!({ "in": "path", "name": name, "required": true, "schema": { "type": "string" } }))
        });
        let others = self.parameters.iter().map(|row| {
            let mut words = row.splitn(3, ' ');
            let (place, name, kind) = (
                words.next().unwrap_or_default(),
                words.next().unwrap_or_default(),
                words.next().unwrap_or_default(),
            );
            json!({
                "in": place,
                "name": name.trim_end_matches('?'),
                "required": !name.ends_with('?'),
                "schema": schemas::of(kind),
            })
        });
        in_path.chain(others).collect()
    }
}

/// The statuses of codes, in order, each with its codes.
fn by_status<'c>(codes: impl Iterator<Item = &'c str>) -> Vec<(u16, Vec<&'c str>)> {
    let mut found: Vec<(u16, Vec<&str>)> = Vec::new();
    for code in codes {
        let status = status_of(code);
        match found.iter_mut().find(|(other, _)| *other == status) {
            Some((_, list)) if !list.contains(&code) => list.push(code),
            Some(_) => {}
            None => found.push((status, vec![code])),
        }
    }
    found.sort_by_key(|(status, _)| *status);
    found
}

/// The status that a code is answered with: the sale's own, or the edge's.
fn status_of(code: &str) -> u16 {
    const EDGE: [(&str, u16); 11] = [
        ("bad_request", 400),
        ("unauthorized", 401),
        ("cross_site", 403),
        ("body_timeout", 408),
        ("limited", 429),
        ("internal", 500),
        ("not_ready", 503),
        ("bad_configuration", 422),
        ("restart_needed", 409),
        ("no_backup_here", 409),
        ("backup_running", 409),
    ];
    let own = Code::ALL.iter().find(|known| known.as_str() == code);
    let edge = || EDGE.iter().find(|(known, _)| *known == code);
    own.map(|known| known.status().as_u16())
        .or_else(|| edge().map(|(_, status)| *status))
        .unwrap_or_else(|| unreachable!("no code {code}: the tables are tested"))
}

fn refusal(codes: &[&str]) -> Value {
    json!({
        "description": codes.join(", "),
        "content": { "application/problem+json": { "schema": {
            "allOf": [
                { "$ref": "#/components/schemas/Problem" },
                { "properties": { "code": { "enum": codes } } },
            ],
        } } },
    })
}

/// `/admin/v1/openapi/sale.json` and `…/admin.json`.
pub fn router() -> Router {
    let serve = |api: Api| routing::get(move || async move { Json(api.document()) });
    Router::new()
        .route("/admin/v1/openapi/sale.json", serve(Api::Sale))
        .route("/admin/v1/openapi/admin.json", serve(Api::Admin))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// `(method, path)` of every route in a router's source text.
    fn routes(source: &str) -> BTreeSet<(String, String)> {
        let mut found = BTreeSet::new();
        for route in source.split(".route(").skip(1) {
            let Some(path) = route.split('"').nth(1).filter(|path| path.starts_with('/')) else {
                continue;
            };
            let chain = route.split(".layer(").next().unwrap();
            let chain = chain.split(".fallback(").next().unwrap();
            for method in ["get", "post", "put", "patch", "delete"] {
                let is_there = [
                    format!("routing::{method}("),
                    format!(".{method}("),
                    format!(" {method}("),
                ]
                .iter()
                .any(|call| chain.contains(call.as_str()));
                if is_there {
                    found.insert((method.to_owned(), path.to_owned()));
                }
            }
        }
        found
    }

    fn documented(api: Api) -> BTreeSet<(String, String)> {
        let document = api.document();
        let paths = document["paths"].as_object().unwrap();
        let operations = paths.iter().flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap();
            methods.keys().map(|method| (method.clone(), path.clone()))
        });
        operations.collect()
    }

    #[test]
    fn every_route_has_its_operation_and_every_operation_its_route() {
        let sale = include_str!("../../../../seckill/src/api/mod.rs");
        assert_eq!(documented(Api::Sale), routes(sale));
        let mut admin = routes(include_str!("../../../../seckill/src/admin/mod.rs"));
        for source in [
            include_str!("../../compose/books.rs"),
            include_str!("../../compose/reload.rs"),
            include_str!("../../../../seckill/src/backup/routes.rs"),
            include_str!("../mod.rs"),
            include_str!("../readiness.rs"),
        ] {
            admin.extend(routes(source));
        }
        for api in ["sale", "admin"] {
            admin.insert(("get".to_owned(), format!("/admin/v1/openapi/{api}.json")));
        }
        assert_eq!(documented(Api::Admin), admin);
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_id_is_one() {
        for api in [Api::Sale, Api::Admin] {
            let document = api.document();
            let text = document.to_string();
            for reference in text.split("#/components/schemas/").skip(1) {
                let name = reference.split('"').next().unwrap();
                assert!(
                    document["components"]["schemas"][name].is_object(),
                    "{name}"
                );
            }
            let mut ids = BTreeSet::new();
            for id in text.split("\"operationId\":\"").skip(1) {
                let id = id.split('"').next().unwrap();
                assert!(ids.insert(id.to_owned()), "{id} twice");
            }
        }
    }

    /// What is kept in the repository, for readers of it: `penstock openapi sale > docs/openapi/sale.json`.
    #[test]
    fn the_documents_that_are_kept_are_those_that_are_made() {
        for (api, kept) in [
            (
                Api::Sale,
                include_str!("../../../../docs/openapi/sale.json"),
            ),
            (
                Api::Admin,
                include_str!("../../../../docs/openapi/admin.json"),
            ),
        ] {
            let kept: Value = serde_json::from_str(kept).unwrap();
            assert_eq!(kept, api.document(), "{api:?}: make it again");
        }
    }
}
