//! Each golden script as a test of its own, and a test that none is forgotten.

use std::path::Path;

use crate::script::run;

/// One `#[test]` for each script, and the list of them all.
macro_rules! scripts {
    ($($topic:ident { $($name:ident),* $(,)? })*) => {
        $(mod $topic {
            $(#[test]
            fn $name() {
                super::run(stringify!($topic), stringify!($name));
            })*
        })*

        const LISTED: &[&str] = &[$($(concat!(stringify!($topic), "/", stringify!($name))),*),*];
    };
}

scripts! {
    election {
        a_learner_forgets_a_silent_leader,
        a_member_of_a_higher_term_is_taken_back,
        section_3_4_sole_voter,
        section_3_4_split_vote,
        section_3_4_three_voters,
        section_3_6_1_only_an_up_to_date_log_wins,
        section_4_2_3_a_vote_under_lease_is_ignored,
        section_6_2_a_leader_without_quorum_steps_down,
        section_9_6_a_returning_member_does_not_disturb,
        votes_wait_for_the_disk,
    }
    membership {
        a_candidate_learns_of_a_commit_from_who_refuses_it,
        a_learner_that_is_a_voter_must_vote,
        a_removed_member_cannot_disturb,
        changes_that_say_nothing_are_refused,
        nobody_campaigns_with_a_committed_change_unapplied,
        section_4_1_a_new_leader_waits_for_its_own_term,
        section_4_1_one_change_at_a_time,
        section_4_2_1_learners_join_then_vote,
        section_4_2_2_a_removed_leader_leads_on_until_it_may_go,
        section_4_2_2_two_to_one_sticks,
    }
    read_index {
        a_leader_without_quorum_answers_no_read,
        a_lost_round_is_asked_again,
        a_removed_leader_still_needs_the_others,
        a_repeated_ticket_reads_nothing_stale,
        a_sole_voter_answers_at_once,
        section_6_4_a_leader_confirms_itself_first,
        section_6_4_followers_ask_their_leader,
        section_6_4_nothing_before_a_commit_in_its_own_term,
    }
    replication {
        a_commit_is_told_at_once,
        a_full_tail_refuses_proposals,
        a_heartbeat_commits_no_more_than_is_confirmed,
        a_lost_append_is_found_by_a_heartbeat,
        an_unreachable_follower_is_probed,
        appends_are_old_news_below_the_commit_index,
        section_10_2_1_the_leader_writes_while_it_sends,
        section_3_5_logs_are_brought_in_line,
        section_3_6_2_old_terms_are_committed_by_new_ones,
        the_window_bounds_bytes_too,
        the_window_bounds_what_is_in_flight,
    }
    snapshot {
        a_failed_stream_is_tried_again,
        a_follower_that_catches_up_needs_no_snapshot,
        a_snapshot_of_what_the_log_holds_moves_the_commit_index,
        an_installed_snapshot_whose_answer_was_lost,
        compaction_keeps_what_live_followers_lack,
        memory_is_bounded_and_old_entries_are_fetched,
        purged_entries_become_a_snapshot,
    }
    storage {
        a_member_without_its_record_is_not_leader,
        a_record_carries_the_commit_index,
        a_restart_fetches_what_memory_lacks,
        a_stale_token_certifies_nothing,
        a_stalled_disk_gets_no_record_a_tick,
        acknowledgements_wait_for_the_disk,
        committed_entries_come_in_pages,
        the_machine_waits_for_its_own_log,
    }
    transfer {
        a_sole_voter_waits_for_its_disk,
        a_stalled_disk_gives_leadership_away,
        a_stalled_leader_without_an_heir_steps_down,
        a_transfer_that_takes_too_long_is_given_up,
        only_the_leader_may_ask_for_a_campaign,
        section_3_10_leadership_is_handed_over,
        section_3_10_the_heir_catches_up_first,
        what_cannot_lead_is_no_heir,
    }
}

#[test]
fn every_script_is_listed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut found = Vec::new();
    for topic in std::fs::read_dir(&root).expect("read the scripts' directory") {
        let topic = topic.expect("read a topic").path();
        for script in std::fs::read_dir(&topic).expect("read a topic's directory") {
            let script = script.expect("read a script").path();
            let relative = script.strip_prefix(&root).expect("it lies below").with_extension("");
            found.push(relative.to_str().expect("script names are ASCII").to_owned());
        }
    }
    found.sort_unstable();
    let mut listed: Vec<&str> = LISTED.to_vec();
    listed.sort_unstable();
    assert_eq!(found, listed, "scripts on disk (left) and in the list above (right) differ");
}
