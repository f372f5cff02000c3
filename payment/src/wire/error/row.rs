//! One line of the table of errors, and the `error` object that Stripe's SDKs read out of it.

use serde_json::{Map, Value, json};

use super::super::objects::doc_url;

/// Stripe's error types, of which the SDKs make their exceptions.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    InvalidRequest,
    Card,
    Idempotency,
    Api,
}

/// One line of the table.
pub(super) struct Row {
    pub(super) status: u16,
    kind: Kind,
    code: Option<String>,
    message: String,
    param: Option<String>,
    /// Whether the SDK should send the request again as it is.
    pub(super) is_retried: bool,
}

impl Row {
    pub(super) fn new(
        status: u16,
        kind: Kind,
        code: Option<&str>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            status,
            kind,
            code: code.map(str::to_owned),
            message: message.into(),
            param: None,
            is_retried: false,
        }
    }

    pub(super) fn of_param(self, param: impl Into<String>) -> Self {
        Self {
            param: Some(param.into()),
            ..self
        }
    }

    pub(super) fn retried(self) -> Self {
        Self {
            is_retried: true,
            ..self
        }
    }

    /// The `error` object, but for what only some errors have.
    pub(super) fn object(&self) -> Map<String, Value> {
        let mut error = Map::new();
        error.insert("type".into(), json!(self.kind.as_str()));
        error.insert("message".into(), json!(self.message));
        if let Some(code) = &self.code {
            error.insert("code".into(), json!(code));
            error.insert("doc_url".into(), json!(doc_url(code)));
        }
        if let Some(param) = &self.param {
            error.insert("param".into(), json!(param));
        }
        error
    }
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request_error",
            Self::Card => "card_error",
            Self::Idempotency => "idempotency_error",
            Self::Api => "api_error",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_a_page_where_it_has_a_code() {
        let bare = Row::new(404, Kind::InvalidRequest, None, "no").object();
        assert!(!bare.contains_key("code") && !bare.contains_key("doc_url"));
        let full = Row::new(402, Kind::Card, Some("a_b"), "no").of_param("p");
        assert!(!full.is_retried && full.object()["param"] == "p");
        let page = full.object()["doc_url"].to_string();
        assert!(page.ends_with("/a-b\""), "{page}");
    }
}
