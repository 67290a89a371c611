//! One line for each thing that happens, dense enough to read a whole script at a glance.

use quorate_consensus::{
    Body, Configuration, ConfigurationChange, Entry, MemberId, Message, Payload, Record, Rejection,
    Role, SoftState,
};

pub(crate) fn entry(entry: &Entry) -> String {
    let at = format!("{}@{}", entry.index, entry.term);
    match &entry.payload {
        Payload::Empty => at,
        Payload::Command(bytes) => {
            let text = String::from_utf8_lossy(bytes);
            if text.len() > 12 {
                format!("{at}=<{} bytes>", text.len())
            } else {
                format!("{at}={text}")
            }
        }
        Payload::Change(ConfigurationChange::AddVoter(id), _) => format!("{at}+voter:{id}"),
        Payload::Change(ConfigurationChange::AddLearner(id), _) => format!("{at}+learner:{id}"),
        Payload::Change(ConfigurationChange::Remove(id), _) => format!("{at}-{id}"),
    }
}

pub(crate) fn entries(list: &[Entry]) -> String {
    let words: Vec<String> = list.iter().map(entry).collect();
    format!("[{}]", words.join(" "))
}

pub(crate) fn ids<'a>(list: impl IntoIterator<Item = &'a MemberId>) -> String {
    let words: Vec<String> = list.into_iter().map(ToString::to_string).collect();
    words.join(",")
}

pub(crate) fn configuration(configuration: &Configuration) -> String {
    let learners = if configuration.learners.is_empty() {
        String::new()
    } else {
        format!(" learners={}", ids(&configuration.learners))
    };
    format!("voters={}{learners}", ids(&configuration.voters))
}

pub(crate) fn state(state: &SoftState) -> String {
    let role = match state.role {
        Role::Follower if state.leader.is_some() => format!("follows {}", state.leader),
        Role::Follower => "follows nobody".to_owned(),
        Role::PreCandidate => "pre-candidate".to_owned(),
        Role::Candidate => "candidate".to_owned(),
        Role::Leader => "leads".to_owned(),
    };
    format!("{role}, term {}, commit {}", state.term, state.commit)
}

pub(crate) fn record(record: &Record) -> String {
    let state = record.hard_state;
    let snapshot = record
        .snapshot
        .as_ref()
        .map_or(String::new(), |meta| format!(" snapshot={}@{}", meta.index, meta.term));
    let entries = if record.entries.is_empty() {
        String::new()
    } else {
        format!(" {}", entries(&record.entries))
    };
    format!(
        "writes #{} term={} vote={} commit={}{snapshot}{entries}",
        record.token.sequence, state.term, state.vote, state.commit,
    )
}

pub(crate) fn kind(body: &Body) -> &'static str {
    match body {
        Body::PreVote { .. } => "PreVote",
        Body::PreVoteResponse { .. } => "PreVoteResponse",
        Body::Vote { .. } => "Vote",
        Body::VoteResponse { .. } => "VoteResponse",
        Body::Append { .. } => "Append",
        Body::AppendResponse { .. } => "AppendResponse",
        Body::Heartbeat { .. } => "Heartbeat",
        Body::HeartbeatResponse { .. } => "HeartbeatResponse",
        Body::Snapshot { .. } => "Snapshot",
        Body::TimeoutNow => "TimeoutNow",
        Body::ReadIndex { .. } => "ReadIndex",
        Body::ReadIndexResponse { .. } => "ReadIndexResponse",
    }
}

pub(crate) fn message(message: &Message) -> String {
    let answer = |granted: bool| if granted { "granted" } else { "refused" };
    let detail = match &message.body {
        Body::PreVote { last_index, last_term } => format!(" last={last_index}@{last_term}"),
        Body::Vote { last_index, last_term, transfer } => {
            let transfer = if *transfer { " transfer" } else { "" };
            format!(" last={last_index}@{last_term}{transfer}")
        }
        Body::PreVoteResponse { granted, committed }
        | Body::VoteResponse { granted, committed } => {
            format!(" {} commit={}@{}", answer(*granted), committed.index, committed.term)
        }
        Body::Append { previous_index, previous_term, entries: list, commit } => {
            format!(" after={previous_index}@{previous_term} {} commit={commit}", entries(list))
        }
        Body::AppendResponse { index, commit, rejection: None } => {
            format!(" holds={index} commit={commit}")
        }
        Body::AppendResponse {
            index,
            rejection: Some(Rejection { hint_index, hint_term }),
            ..
        } => {
            format!(" lacks={index} hint={hint_index}@{hint_term}")
        }
        Body::Heartbeat { commit, context } if context.0 == 0 => format!(" commit={commit}"),
        Body::Heartbeat { commit, context } => format!(" commit={commit} round={}", context.0),
        Body::HeartbeatResponse { context } if context.0 == 0 => String::new(),
        Body::HeartbeatResponse { context } => format!(" round={}", context.0),
        Body::Snapshot { meta } => {
            format!(" {}@{} {}", meta.index, meta.term, configuration(&meta.configuration))
        }
        // The number of a forwarded read is drawn at random; which one it is does not matter.
        Body::TimeoutNow | Body::ReadIndex { .. } => String::new(),
        Body::ReadIndexResponse { index, .. } => format!(" index={index}"),
    };
    format!("{}>{} t{} {}{detail}", message.from, message.to, message.term, kind(&message.body))
}
