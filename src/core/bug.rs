//! Mistakes that the simulation plants on purpose, to show that the history checker would catch them.
//!
//! Only test builds can plant one: `Core::plant` does not exist in the shipped program, and the compiler
//! removes what would be done.

/// One mistake (the invariant it breaks is what the simulation must report).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bug {
    /// Authority counts from the answer of a Lease write instead of its sending.
    ValidityFromResponse,
    /// Sending a hand-over or a shorter duration does not bound authority.
    HandoverKeepsAuthority,
    /// The route call is made without an intent in the ledger.
    NoIntent,
    /// Lease writes name no resource version.
    WriteWithoutVersion,
    /// An unknown observation is taken for `Elsewhere`.
    UnknownIsElsewhere,
    /// Expiry is judged by wall clocks.
    WallClockExpiry,
    /// An address's lifetime is not refreshed.
    NoRefresh,
    /// A bid does not wait after the API's return.
    NoWaitAfterReturn,
    /// That wait is counted from the record's expiry.
    WaitFromExpiry,
    /// The budget lives in memory only.
    BudgetInMemory,
    /// The ledger's times are the node's.
    LedgerInNodeTime,
    /// A Lease whose holder was emptied is taken at once.
    EmptiedIsFree,
    /// Reading the own name in the Lease is taken for authority.
    NameIsAuthority,
    /// A node in authority overwrites a record of a newer epoch.
    OverwritesNewerEpoch,
    /// A process adopts the Lease by host id alone.
    AdoptsByHostAlone,
    /// Leftover addresses are removed before the first answer.
    RemovesBeforeFirstAnswer,
    /// An address is removed on an answer that is older than the last change of role.
    RemovesOnOldAnswer,
    /// A holder gives up without a witness.
    GivesUpWithoutWitness,
    /// The renewal between intent and call is not waited for.
    NoRenewal,
    /// An address is removed without regard to the node's own call that may still land.
    IgnoresOwnCalls,
    /// An epoch is counted from the Lease alone, which may be gone or restored.
    EpochFromLeaseAlone,
    /// An IP is followed to a node that was not heard in this term: the dead one that the Lease was taken from.
    FollowsTheDead,
    /// The end of a call is waited for although the provider has fallen silent. No invariant bounds how long that may
    /// last: the scenario of the rule shows it, not the seeds.
    WaitsForTheSilent,
    /// An address is kept as long as a task of this node's own call runs. The scenario of the rule shows it: a task that
    /// is stuck while another node routes is rarer than the seeds.
    WaitsForTheStuck,
    /// A process that was stopped goes on with what it knew before. The scenario of the rule shows it: the Lease has to
    /// come and go meanwhile.
    SleepsUnnoticed,
    /// A read that crosses the own write is not heard at all. The scenario of the rule shows it: the watch has to be
    /// silent and the clock to have stood still.
    DeafWhileWriting,
    /// What the provider said about an IP is remembered while it is out of the configuration. The scenario of the rule
    /// shows it: the checker knows no more than the process.
    RemembersTheRemoved,
    /// An IP that is served well is given away for another one of its group that may fare no better elsewhere. The
    /// scenario of the rule shows it.
    RisksTheWell,
    /// A bid does not wait until the own record shows that writes are accepted. The scenario of the rule shows it.
    BidsUnproven,
    /// A node record that somebody deleted is written again at the next heartbeat only. The scenario of the rule shows
    /// it: all objects have to go while a node is away.
    RecordStaysGone,
    /// What the provider says of when to come back is not heard.
    ForgetsToWait,
    /// A link that is back is not announced on.
    SilentAfterFlap,
    /// No alarm is ever raised.
    RaisesNoAlarm,
    /// An alarm is never over.
    AlarmsForEver,
    /// A holder that cannot route goes on holding.
    NeverUnable,
}

impl Bug {
    /// Those that the history checker is to catch among the seeds.
    pub const ALL: [Self; 22] = [
        Self::ValidityFromResponse,
        Self::HandoverKeepsAuthority,
        Self::NoIntent,
        Self::WriteWithoutVersion,
        Self::UnknownIsElsewhere,
        Self::WallClockExpiry,
        Self::NoRefresh,
        Self::NoWaitAfterReturn,
        Self::WaitFromExpiry,
        Self::BudgetInMemory,
        Self::LedgerInNodeTime,
        Self::EmptiedIsFree,
        Self::NameIsAuthority,
        Self::OverwritesNewerEpoch,
        Self::AdoptsByHostAlone,
        Self::RemovesBeforeFirstAnswer,
        Self::RemovesOnOldAnswer,
        Self::GivesUpWithoutWitness,
        Self::NoRenewal,
        Self::IgnoresOwnCalls,
        Self::EpochFromLeaseAlone,
        Self::FollowsTheDead,
    ];

    /// Those that show while something lasts.
    pub const LASTING: [Self; 5] = [
        Self::ForgetsToWait,
        Self::SilentAfterFlap,
        Self::RaisesNoAlarm,
        Self::AlarmsForEver,
        Self::NeverUnable,
    ];
}
