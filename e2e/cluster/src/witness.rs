//! A witness that looks at the members themselves forty times a second, and the laws that what it saw must obey.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::MissedTickBehavior;

use crate::addresses::Addresses;
use crate::audit::Request;
use crate::limits::{SAMPLE_ANSWER, SAMPLE_INTERVAL};
use crate::member::Member;
use crate::store::Store;

/// A member in the list of members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    /// Empty until it has started.
    pub name: String,
    /// Where its peers find it: known before its name is.
    pub peer_urls: Vec<String>,
    /// It has no vote.
    pub learner: bool,
}

/// What was seen at one moment, of what the members answered since the moment before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When the voter was asked that lists the members here: of those that answered, the one that
    /// had applied most.
    pub at: Timestamp,
    /// The members, as that voter listed them.
    pub seats: BTreeMap<u64, Seat>,
    /// Who leads, as that voter said; 0 when it knew of nobody.
    pub leader: u64,
    /// Who has answered within [`SAMPLE_ANSWER`].
    pub answered: BTreeSet<u64>,
    /// The cluster ids in the answers.
    pub clusters: BTreeSet<u64>,
}

/// Looks until it is stopped.
#[derive(Debug)]
pub struct Witness {
    stop: watch::Sender<bool>,
    task: JoinHandle<Vec<Sample>>,
}

/// Everything that was seen, in order.
#[derive(Clone, Debug, Default)]
pub struct Testimony {
    /// Samples in which somebody listed the members.
    pub samples: Vec<Sample>,
}

impl Witness {
    /// Begins to look.
    #[must_use]
    pub fn start(store: &Store) -> Self {
        let addresses = Addresses::follow(store);
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(look(addresses, stopped));
        Self { stop, task }
    }

    /// Ends the looking.
    ///
    /// # Errors
    /// It ended before.
    pub async fn stop(self) -> Result<Testimony> {
        self.stop.send_replace(true);
        let mut samples = self.task.await.context("the witness")?;
        samples.sort_by_key(|sample| sample.at);
        let testimony = Testimony { samples };
        println!(
            "witness: {} samples, the longest time between two was {:.1} s",
            testimony.samples.len(),
            testimony.longest_gap().as_secs_f64()
        );
        Ok(testimony)
    }
}

impl Testimony {
    /// Law: there is one cluster, whoever answers.
    ///
    /// # Errors
    /// Two cluster ids were seen.
    pub fn one_cluster(&self) -> Result<u64> {
        let all: BTreeSet<u64> =
            self.samples.iter().flat_map(|sample| sample.clusters.iter().copied()).collect();
        ensure!(all.len() == 1, "cluster ids {all:x?} were seen");
        all.first().copied().context("no cluster id was seen")
    }

    /// Law: whoever joins is a learner first. Returns how many joined.
    ///
    /// # Errors
    /// A member was a voter when it was seen first.
    pub fn joiners_learned_first(&self) -> Result<usize> {
        let mut known: BTreeSet<u64> = BTreeSet::new();
        let mut joined = 0;
        for (number, sample) in self.samples.iter().enumerate() {
            for (id, seat) in &sample.seats {
                if known.insert(*id) && number > 0 {
                    ensure!(seat.learner, "{id:x} was a voter when it was seen first: {sample:?}");
                    joined += 1;
                }
            }
        }
        Ok(joined)
    }

    /// Law: the voters change by one at a time.
    ///
    /// # Errors
    /// Two voters came or went between two samples.
    pub fn one_change_at_a_time(&self) -> Result<()> {
        for pair in self.samples.windows(2) {
            let (before, after) = (voters(&pair[0]), voters(&pair[1]));
            let changed: Vec<&u64> = before.symmetric_difference(&after).collect();
            ensure!(changed.len() <= 1, "voters {changed:x?} came or went at {}", pair[1].at);
        }
        Ok(())
    }

    /// Law: at no moment are two voters silent. For runs in which nobody takes a member down.
    ///
    /// # Errors
    /// Two were.
    pub fn never_two_silent(&self) -> Result<()> {
        for sample in &self.samples {
            let silent: Vec<u64> = voters(sample).difference(&sample.answered).copied().collect();
            ensure!(silent.len() <= 1, "voters {silent:x?} were silent at {}", sample.at);
        }
        Ok(())
    }

    /// Law: a member that led left only after leadership had been moved off it.
    ///
    /// # Errors
    /// It never led, or led when it was listed last.
    pub fn leadership_left_before(&self, id: u64) -> Result<()> {
        let led = self.samples.iter().any(|sample| sample.leader == id);
        ensure!(led, "{id:x} was never seen to lead: the test did not put leadership on it");
        let last = self.samples.iter().rfind(|sample| sample.seats.contains_key(&id));
        let last = last.context("it was never listed")?;
        let leader = last.leader;
        ensure!(
            leader != id && leader != 0,
            "{id:x} was listed last at {}, when {leader:x} led",
            last.at
        );
        Ok(())
    }

    /// Law: nobody led when the operator took its pod.
    ///
    /// # Errors
    /// Somebody did, or nobody was seen before.
    pub fn nobody_led_when_restarted(&self, restarts: &[&Request]) -> Result<()> {
        for restart in restarts {
            let before = self.samples.iter().rfind(|sample| sample.at <= restart.began);
            let before =
                before.with_context(|| format!("nothing seen before {}", restart.began))?;
            let leader = before.seats.get(&before.leader).map(|seat| format!("{}-0", seat.name));
            ensure!(
                leader.as_deref() != Some(restart.name.as_str()),
                "{} led when it was taken at {}",
                restart.name,
                restart.began
            );
        }
        Ok(())
    }

    /// Law: a claim is deleted only after its member was listed for the last time.
    ///
    /// # Errors
    /// It was deleted under a member.
    pub fn claims_outlive_members(&self, requests: &[Request]) -> Result<usize> {
        let deletions = requests.iter().filter(|it| it.deleted("persistentvolumeclaims"));
        let mut deleted = 0;
        for deletion in deletions {
            deleted += 1;
            // db-3-1 is the claim of db-3, whose peer URL begins with http://db-3-0.
            let member = deletion.name.rsplit_once('-').map_or("", |(member, _)| member);
            let host = format!("//{member}-0.");
            let later = self.samples.iter().find(|sample| {
                let mut urls = sample.seats.values().flat_map(|seat| &seat.peer_urls);
                sample.at > deletion.at && urls.any(|url| url.contains(&host))
            });
            ensure!(later.is_none(), "{} was deleted under its member: {later:?}", deletion.name);
        }
        Ok(deleted)
    }

    fn longest_gap(&self) -> Duration {
        let gaps = self.samples.windows(2).map(|pair| {
            Duration::try_from(pair[1].at.duration_since(pair[0].at)).unwrap_or_default()
        });
        gaps.max().unwrap_or_default()
    }
}

fn voters(sample: &Sample) -> BTreeSet<u64> {
    sample.seats.iter().filter(|(_, seat)| !seat.learner).map(|(id, _)| *id).collect()
}

/// A member that is looked at.
#[derive(Default)]
struct Watched {
    /// Kept from question to question; none once it has failed.
    connection: Option<Member>,
    /// A question is out.
    asked: bool,
    /// Who it is and when it answered last.
    heard: Option<(Instant, u64)>,
}

async fn look(addresses: Addresses, stopped: watch::Receiver<bool>) -> Vec<Sample> {
    let mut watched: BTreeMap<String, Watched> = BTreeMap::new();
    let mut questions = JoinSet::new();
    let mut samples = Vec::new();
    let mut newest = 0;
    let mut ticks = tokio::time::interval(SAMPLE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while !*stopped.borrow() {
        ticks.tick().await;
        let known: Vec<String> = addresses.all.borrow().values().cloned().collect();
        watched.retain(|address, _| known.contains(address));
        for address in known {
            let member = watched.entry(address.clone()).or_default();
            if !std::mem::replace(&mut member.asked, true) {
                questions.spawn(ask(address, member.connection.clone()));
            }
        }
        // What was answered by now; nobody waits for one that is slow.
        let mut answers = Vec::new();
        while let Some(answer) = questions.try_join_next() {
            let Ok((address, connection, answer)) = answer else { continue };
            let Some(member) = watched.get_mut(&address) else { continue };
            member.asked = false;
            member.connection = connection;
            if let Some(answer) = answer {
                member.heard = Some((Instant::now(), answer.id));
                answers.push(answer);
            }
        }
        let lately = watched.values().filter_map(|member| member.heard);
        let lately = lately.filter(|(when, _)| when.elapsed() <= SAMPLE_ANSWER);
        if let Some((applied, sample)) = sample(&answers, lately.map(|(_, id)| id).collect()) {
            // What a member lists that is behind, or was removed, has been seen before.
            if applied >= newest {
                newest = applied;
                samples.push(sample);
            }
        }
    }
    samples
}

/// What one member answered.
struct Answer {
    at: Timestamp,
    id: u64,
    cluster: u64,
    leader: u64,
    applied: u64,
    /// None from a learner, which lists no members.
    seats: Option<BTreeMap<u64, Seat>>,
}

/// Asks one member. The connection comes back unless it is of no use any more.
async fn ask(
    address: String,
    connection: Option<Member>,
) -> (String, Option<Member>, Option<Answer>) {
    let at = Timestamp::now();
    let asking = async {
        let member = match connection {
            Some(member) => member,
            None => Member::connect(&address).await?,
        };
        let (status, list) = tokio::join!(member.status(), member.members(false));
        let status = status?;
        let list = if status.is_learner { None } else { Some(list?) };
        anyhow::Ok((member, status, list))
    };
    let Ok(Ok((member, status, list))) = tokio::time::timeout(SAMPLE_ANSWER, asking).await else {
        return (address, None, None);
    };
    let header = status.header.unwrap_or_default();
    let answer = Answer {
        at,
        id: header.member_id,
        cluster: header.cluster_id,
        leader: status.leader,
        applied: status.raft_applied_index,
        seats: list.map(|list| list.members.into_iter().map(seat).collect()),
    };
    (address, Some(member), Some(answer))
}

fn seat(member: quorate_proto::etcdserverpb::Member) -> (u64, Seat) {
    let seat = Seat { name: member.name, peer_urls: member.peer_ur_ls, learner: member.is_learner };
    (member.id, seat)
}

/// What the answers say together, and the index that the list of members in it was applied at.
fn sample(answers: &[Answer], answered: BTreeSet<u64>) -> Option<(u64, Sample)> {
    // A joiner lists nobody until its snapshot has come.
    let lists = answers.iter().filter(|it| it.seats.as_ref().is_some_and(|list| !list.is_empty()));
    let most = lists.max_by_key(|answer| answer.applied)?;
    let sample = Sample {
        at: most.at,
        seats: most.seats.clone()?,
        leader: most.leader,
        answered,
        clusters: answers.iter().map(|answer| answer.cluster).collect(),
    };
    Some((most.applied, sample))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Members by id: positive votes, negative learns; the first leads.
    fn seen(second: i64, members: &[i64], leader: u64) -> Sample {
        let seat = |id: &i64| {
            let peer_urls = vec![format!("http://db-{}-0.db-peers:2380", id.unsigned_abs())];
            let seat = Seat { name: String::new(), peer_urls, learner: *id < 0 };
            (id.unsigned_abs(), seat)
        };
        Sample {
            at: Timestamp::from_second(second).unwrap(),
            seats: members.iter().map(seat).collect(),
            leader,
            answered: members.iter().map(|id| id.unsigned_abs()).collect(),
            clusters: BTreeSet::from([7]),
        }
    }

    #[test]
    fn a_run_as_it_should_be_passes() {
        let samples = vec![
            seen(0, &[1], 1),
            seen(1, &[1, -2], 1),
            seen(2, &[1, 2], 2),
            seen(3, &[1, 2], 1),
            seen(4, &[1], 1),
        ];
        let run = Testimony { samples };
        assert_eq!(run.joiners_learned_first().unwrap(), 1);
        assert_eq!(run.one_cluster().unwrap(), 7);
        run.one_change_at_a_time().unwrap();
        run.never_two_silent().unwrap();
        run.leadership_left_before(2).unwrap();
    }

    #[test]
    fn each_law_is_broken_by_what_it_forbids() {
        let run = |samples: &[Sample]| Testimony { samples: samples.to_vec() };
        assert!(run(&[seen(0, &[1], 1), seen(1, &[1, 2], 1)]).joiners_learned_first().is_err());
        let two = run(&[seen(0, &[1, 2, 3], 1), seen(1, &[1], 1)]);
        assert!(two.one_change_at_a_time().is_err());
        assert!(run(&[seen(0, &[1, 2], 2), seen(1, &[1], 1)]).leadership_left_before(2).is_err());
        assert!(run(&[seen(0, &[1, 2], 1), seen(1, &[1], 1)]).leadership_left_before(2).is_err());
        let mut deaf = seen(0, &[1, 2, 3], 1);
        deaf.answered = BTreeSet::from([1]);
        assert!(run(&[deaf]).never_two_silent().is_err());
        let mut foreign = seen(0, &[1], 1);
        foreign.clusters.insert(8);
        assert!(run(&[foreign]).one_cluster().is_err());
    }

    #[test]
    fn a_leader_that_is_restarted_is_found() {
        let restart = |name: &str| Request {
            began: Timestamp::from_second(1).unwrap(),
            at: Timestamp::from_second(1).unwrap(),
            verb: "create".to_owned(),
            user: crate::installation::OPERATOR_USER.to_owned(),
            resource: "pods/eviction".to_owned(),
            name: name.to_owned(),
            code: 201,
        };
        let mut sample = seen(0, &[1, 2], 2);
        for (id, seat) in &mut sample.seats {
            seat.name = format!("db-{id}");
        }
        let run = Testimony { samples: vec![sample] };
        run.nobody_led_when_restarted(&[&restart("db-1-0")]).unwrap();
        assert!(run.nobody_led_when_restarted(&[&restart("db-2-0")]).is_err());
    }

    #[test]
    fn a_claim_that_is_deleted_under_its_member_is_found() {
        let deletion = Request {
            began: Timestamp::from_second(1).unwrap(),
            at: Timestamp::from_second(1).unwrap(),
            verb: "delete".to_owned(),
            user: crate::installation::OPERATOR_USER.to_owned(),
            resource: "persistentvolumeclaims".to_owned(),
            name: "db-2-1".to_owned(),
            code: 200,
        };
        let run = |samples: &[Sample]| Testimony { samples: samples.to_vec() };
        let good = run(&[seen(0, &[1, 2], 1), seen(2, &[1], 1)]);
        assert_eq!(good.claims_outlive_members(std::slice::from_ref(&deletion)).unwrap(), 1);
        let bad = run(&[seen(0, &[1, 2], 1), seen(2, &[1, 2], 1)]);
        assert!(bad.claims_outlive_members(&[deletion]).is_err());
    }
}
