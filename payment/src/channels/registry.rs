//! The channels of this process by their names. A new charge goes to the first that takes its token; a charge that was made is asked
//! about at the channel that made it, and nowhere else.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::{Channel, ChannelError, Guarded};

pub(crate) struct Registry {
    /// In the order in which they are preferred.
    channels: Vec<Guarded>,
    /// Names that rows have and this process does not, so that each is logged once. Bounded by the channels there ever were. Held for
    /// one look, never across an await.
    missing: Mutex<BTreeSet<String>>,
}

/// Channels that cannot stand side by side. The code that registers them is at fault.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// Nobody could take money.
    #[error("there is no payment channel")]
    Empty,
    /// A charge's row would not say which of the two made it.
    #[error("two payment channels have one name: {name}")]
    Twice {
        /// The name.
        name: &'static str,
    },
}

impl Registry {
    pub(crate) fn try_new(
        channels: Vec<Arc<dyn Channel>>,
        deadline: Duration,
    ) -> Result<Self, RegistryError> {
        let mut names = BTreeSet::new();
        for channel in &channels {
            let name = channel.name();
            if !names.insert(name) {
                return Err(RegistryError::Twice { name });
            }
        }
        if channels.is_empty() {
            return Err(RegistryError::Empty);
        }
        let guarded = |channel| Guarded::new(channel, deadline);
        Ok(Self {
            channels: channels.into_iter().map(guarded).collect(),
            missing: Mutex::default(),
        })
    }

    /// Whether any channel can charge this token.
    pub(crate) fn accepts(&self, payment_method: &str) -> bool {
        self.channels.iter().any(|c| c.accepts(payment_method))
    }

    /// The channel of a new charge. A token that nobody takes any more goes to the first one, which refuses it.
    pub(crate) fn for_new(&self, payment_method: &str) -> &Guarded {
        self.channels
            .iter()
            .find(|channel| channel.accepts(payment_method))
            .unwrap_or(&self.channels[0])
    }

    /// The only channel, if there is one.
    pub(crate) fn only(&self) -> Option<&Guarded> {
        match self.channels.as_slice() {
            [only] => Some(only),
            _ => None,
        }
    }

    /// The channel that made a charge. Another one would say that it never saw the charge, and money would be taken for refused.
    pub(crate) fn of_charge(&self, name: &str) -> Result<&Guarded, ChannelError> {
        if let Some(channel) = self.channels.iter().find(|c| c.name() == name) {
            return Ok(channel);
        }
        if self.is_news(name) {
            tracing::error!(
                channel = name,
                "charges in doubt were made by a channel that is not configured; they stay unknown until it is"
            );
        }
        Err(ChannelError::Unregistered {
            name: name.to_owned(),
        })
    }

    /// Whether this is the first time that the name is missed.
    fn is_news(&self, name: &str) -> bool {
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        missing.insert(name.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::{
        super::{ChannelOutcome, ChargeRequest, RefundRequest},
        *,
    };

    /// Takes tokens that begin with its name.
    struct Named(&'static str);

    #[async_trait]
    impl Channel for Named {
        fn name(&self) -> &'static str {
            self.0
        }

        fn accepts(&self, payment_method: &str) -> bool {
            payment_method.starts_with(self.0)
        }

        async fn charge(&self, _: &ChargeRequest) -> ChannelOutcome {
            ChannelOutcome::Unknown
        }

        async fn query(&self, _: &ChargeRequest) -> ChannelOutcome {
            ChannelOutcome::Unknown
        }

        async fn refund(&self, _: &RefundRequest) -> ChannelOutcome {
            ChannelOutcome::Unknown
        }
    }

    fn registry(names: &[&'static str]) -> Result<Registry, RegistryError> {
        let channels = names.iter().map(|name| Arc::new(Named(name)) as _);
        Registry::try_new(channels.collect(), Duration::from_secs(1))
    }

    #[test]
    fn a_new_charge_goes_to_the_first_channel_that_takes_its_token() {
        let two = registry(&["ab", "a"]).unwrap();
        assert_eq!(two.for_new("abc").name(), "ab");
        assert_eq!(two.for_new("ac").name(), "a");
        assert_eq!(two.for_new("x").name(), "ab");
        assert!(two.accepts("ac") && !two.accepts("x"));
        assert!(two.only().is_none() && registry(&["a"]).unwrap().only().is_some());
    }

    #[test]
    fn a_charge_is_found_by_name_and_a_missing_name_is_news_once() {
        let two = registry(&["new", "old"]).unwrap();
        assert_eq!(two.of_charge("old").unwrap().name(), "old");
        for _ in 0..2 {
            assert!(matches!(
                two.of_charge("gone"),
                Err(ChannelError::Unregistered { name }) if name == "gone"
            ));
        }
        assert!(!two.is_news("gone") && two.is_news("other"));
    }

    #[test]
    fn names_are_unique_and_there_is_at_least_one() {
        assert_eq!(registry(&[]).err(), Some(RegistryError::Empty));
        assert_eq!(
            registry(&["a", "b", "a"]).err(),
            Some(RegistryError::Twice { name: "a" })
        );
    }
}
