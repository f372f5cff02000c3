//! Payment intents, channels and the double-entry ledger, on Stripe's wire.
