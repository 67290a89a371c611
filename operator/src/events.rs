//! Events of a StoreCluster, through events.k8s.io.
//!
//! kube's own recorder folds events of one reason into a series whatever their notes say, so that
//! "demo-2 joins" would vanish behind "demo-1 joins". Here the same *sentence* makes a series, and
//! another sentence is another event.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, Resource};

use crate::limits;
use crate::run::OPERATOR;
use crate::words;

/// What an event says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Saying<'a> {
    /// Whether it needs attention.
    pub(crate) warning: bool,
    /// Stable CamelCase reason.
    pub(crate) reason: &'a str,
    /// One sentence for people.
    pub(crate) note: &'a str,
}

/// Publishes events, and remembers those of the last minutes.
pub(crate) struct Recorder {
    client: Client,
    /// This process among the operators.
    instance: String,
    recent: Mutex<Recent>,
}

impl Recorder {
    /// A recorder that signs with `instance`.
    pub(crate) fn new(client: Client, instance: String) -> Self {
        Recorder { client, instance, recent: Mutex::default() }
    }

    /// Publishes an event. One that cannot be published is logged and dropped: the conditions say
    /// the same, and nothing may depend on events.
    pub(crate) async fn tell<K>(&self, about: &K, saying: Saying<'_>)
    where
        K: Resource<DynamicType = ()>,
    {
        let regarding = about.object_ref(&());
        let namespace = regarding.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let now = Timestamp::now();
        let said =
            self.recent.lock().unwrap_or_else(PoisonError::into_inner).say(&regarding, saying, now);
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let result = if said.count == 1 {
            let event = self.first(&regarding, saying, &said.name, now);
            api.create(&PostParams::default(), &event).await
        } else {
            let series = EventSeries { count: said.count, last_observed_time: MicroTime(now) };
            let change = serde_json::json!({ "series": series });
            api.patch(&said.name, &PatchParams::default(), &Patch::Merge(&change)).await
        };
        if let Err(error) = result {
            let error = words::of_request(&error);
            tracing::warn!(reason = saying.reason, error, "cannot publish an event");
        }
    }

    fn first(
        &self,
        regarding: &ObjectReference,
        saying: Saying<'_>,
        name: &str,
        now: Timestamp,
    ) -> Event {
        Event {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: regarding.namespace.clone(),
                ..ObjectMeta::default()
            },
            // What the reporter was doing; the reason says what came of it.
            action: Some("Reconcile".to_owned()),
            event_time: Some(MicroTime(now)),
            note: Some(cut(saying.note, limits::EVENT_NOTE_BYTES_MAX).to_owned()),
            reason: Some(saying.reason.to_owned()),
            regarding: Some(regarding.clone()),
            reporting_controller: Some(format!("quorate.dev/{OPERATOR}")),
            reporting_instance: Some(self.instance.clone()),
            type_: Some(if saying.warning { "Warning" } else { "Normal" }.to_owned()),
            ..Event::default()
        }
    }
}

/// Events that would be continued, not published anew, by (UID of the object, reason, note).
#[derive(Debug, Default)]
struct Recent {
    said: BTreeMap<(String, String, String), Said>,
}

/// How often something was said, and in which Event object.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Said {
    name: String,
    count: i32,
    last: Timestamp,
}

impl Recent {
    fn say(&mut self, regarding: &ObjectReference, saying: Saying<'_>, now: Timestamp) -> Said {
        let oldest = now - limits::EVENT_SERIES_GAP;
        self.said.retain(|_, said| said.last >= oldest);
        if self.said.len() >= limits::EVENTS_REMEMBERED_MAX {
            self.said.clear();
        }
        let key = (
            regarding.uid.clone().unwrap_or_default(),
            saying.reason.to_owned(),
            saying.note.to_owned(),
        );
        let cluster = regarding.name.as_deref().unwrap_or(OPERATOR);
        let said = self.said.entry(key).or_insert_with(|| Said {
            // client-go's form: the object and the time in nanoseconds.
            name: format!("{cluster}.{:x}", now.as_nanosecond()),
            count: 0,
            last: now,
        });
        said.count = said.count.saturating_add(1);
        said.last = now;
        said.clone()
    }
}

/// The longest beginning of `text` that has at most `bytes_max` bytes and ends between characters.
fn cut(text: &str, bytes_max: usize) -> &str {
    if text.len() <= bytes_max {
        return text;
    }
    let end = (0..=bytes_max).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn demo() -> ObjectReference {
        ObjectReference {
            name: Some("demo".into()),
            uid: Some("u".into()),
            ..ObjectReference::default()
        }
    }

    fn joins(note: &str) -> Saying<'_> {
        Saying { warning: false, reason: "MemberJoining", note }
    }

    #[test]
    fn another_sentence_is_another_event_and_the_same_one_a_series() {
        let mut recent = Recent::default();
        let first = recent.say(&demo(), joins("demo-1 joins"), at(10));
        let other = recent.say(&demo(), joins("demo-2 joins"), at(11));
        let again = recent.say(&demo(), joins("demo-1 joins"), at(12));
        assert_eq!((first.count, other.count, again.count), (1, 1, 2));
        assert_eq!(first.name, again.name);
        assert_ne!(first.name, other.name);
        let successor = ObjectReference { uid: Some("v".into()), ..demo() };
        assert_eq!(recent.say(&successor, joins("demo-1 joins"), at(13)).count, 1);
    }

    #[test]
    fn a_series_ends_after_a_pause() {
        let mut recent = Recent::default();
        recent.say(&demo(), joins("demo-1 joins"), at(0));
        let gap = limits::EVENT_SERIES_GAP.as_secs() as i64;
        assert_eq!(recent.say(&demo(), joins("demo-1 joins"), at(gap)).count, 2);
        assert_eq!(recent.say(&demo(), joins("demo-1 joins"), at(2 * gap + 1)).count, 1);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut recent = Recent::default();
        for number in 0..3 * limits::EVENTS_REMEMBERED_MAX {
            recent.say(&demo(), joins(&number.to_string()), at(1));
            assert!(recent.said.len() <= limits::EVENTS_REMEMBERED_MAX);
        }
    }

    #[test]
    fn notes_stay_below_the_api_servers_limit_and_whole_in_their_characters() {
        assert_eq!(cut("short", 10), "short");
        assert_eq!(cut("naïve", 3), "na", "the two bytes of ï are not torn");
        assert_eq!(cut("naïve", 4), "naï");
        let long = "é".repeat(2000);
        let note = cut(&long, limits::EVENT_NOTE_BYTES_MAX);
        assert!(note.len() <= 1024 && note.len() > 990);
    }
}
