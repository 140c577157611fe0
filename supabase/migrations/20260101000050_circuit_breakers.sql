-- What: circuit breakers that all isolates of all functions share: their states, their counts and their history.
-- Why: an isolate lives for minutes and sees a part of the calls; one that is new must know what the others learnt.
-- Who: the connection's own role. The API roles have no rights here; service_role reads, admins force in Studio.

create sequence holdfast.circuit_breaker_tokens;

comment on sequence holdfast.circuit_breaker_tokens is 'Fencing tokens: each right to probe gets a greater one.';


create table holdfast.circuit_breakers (
    name text primary key,
    state text not null default 'closed',
    epoch bigint not null default 1,
    forced text,
    reason text,
    opened_at timestamptz,
    retry_at timestamptz,
    probe_tokens bigint[] not null default '{}',
    probes_leased_until timestamptz[] not null default '{}',
    probes_succeeded bigint not null default 0,
    changed_at timestamptz not null default clock_timestamp(),
    constraint name_has_1_to_200_characters check (length(name) between 1 and 200),
    constraint state_is_known check (state in ('closed', 'open', 'half_open')),
    constraint epochs_count_from_one check (epoch >= 1),
    constraint closed_ones_have_no_opening check ((state = 'closed') = (opened_at is null)),
    constraint one_is_forced_into_the_state_it_has check (forced is null or (forced = state and state <> 'half_open')),
    constraint what_is_open_or_forced_says_why check (
        (state <> 'closed' or forced is not null) = (reason is not null)
    ),
    -- Held open by hand, it is never probed.
    constraint open_ones_say_when_to_probe check ((state = 'open' and forced is null) = (retry_at is not null)),
    constraint probes_are_of_half_open_ones check (
        state = 'half_open' or (cardinality(probe_tokens) = 0 and probes_succeeded = 0)
    ),
    constraint each_probe_has_token_and_lease check (
        cardinality(probe_tokens) = cardinality(probes_leased_until) and probes_succeeded >= 0
    )
);

comment on table holdfast.circuit_breakers is
    'One row for each breaker that ever counted a call. It is written when the state changes or a probe is given or '
    'ends, not when calls are counted. A row may be deleted: the breaker is then closed, with its counts forgotten.';
comment on column holdfast.circuit_breakers.name is 'As in circuitBreakers.get(name).';
comment on column holdfast.circuit_breakers.state is
    'closed: calls are made; open: calls are refused; half_open: refused but for the probes.';
comment on column holdfast.circuit_breakers.epoch is
    'Grows with each change of state, also by hand. What was counted in another epoch counts for nothing.';
comment on column holdfast.circuit_breakers.forced is 'open or closed: held so by hand, until it is reset.';
comment on column holdfast.circuit_breakers.reason is 'Why it is open, or forced.';
comment on column holdfast.circuit_breakers.opened_at is 'When it was last opened: by the calls, a probe that failed, or by hand.';
comment on column holdfast.circuit_breakers.retry_at is 'From then on somebody may probe: the end of the cooldown.';
comment on column holdfast.circuit_breakers.probe_tokens is 'Whose probes are under way: only the holder of a token reports.';
comment on column holdfast.circuit_breakers.probes_leased_until is
    'For each token the time from which its place may be given to another.';
comment on column holdfast.circuit_breakers.probes_succeeded is 'Since it is half open.';
comment on column holdfast.circuit_breakers.changed_at is 'When the epoch began.';

alter table holdfast.circuit_breakers enable row level security;

create policy "Nobody sees breakers through the API"
    on holdfast.circuit_breakers
    for all
    to anon, authenticated
    using (false)
    with check (false);

grant select on holdfast.circuit_breakers to service_role;


-- Apart from the states, and unlogged: a report of calls is no commit that waits for the disk. A crash of the server
-- loses counts of half a minute, and no state.
create unlogged table holdfast.circuit_breaker_counts (
    name text primary key references holdfast.circuit_breakers (name) on delete cascade,
    epoch bigint not null,
    bucket_starts timestamptz[] not null default '{}',
    bucket_failures bigint[] not null default '{}',
    bucket_successes bigint[] not null default '{}',
    consecutive_failures bigint not null default 0,
    rules jsonb not null,
    reported_at timestamptz not null default clock_timestamp(),
    constraint each_bucket_has_both_counts check (
        cardinality(bucket_starts) = cardinality(bucket_failures)
        and cardinality(bucket_starts) = cardinality(bucket_successes)
    ),
    constraint consecutive_failures_are_not_negative check (consecutive_failures >= 0)
) with (fillfactor = 50, autovacuum_vacuum_threshold = 1000);

comment on table holdfast.circuit_breaker_counts is 'What all isolates together counted of a breaker, while it is closed.';
comment on column holdfast.circuit_breaker_counts.epoch is 'Of the breaker, when these calls began. Another one begins at zero.';
comment on column holdfast.circuit_breaker_counts.bucket_starts is
    'By the database''s clock, the newest last; each a tenth of the window long.';
comment on column holdfast.circuit_breaker_counts.bucket_failures is 'Failures in each bucket.';
comment on column holdfast.circuit_breaker_counts.bucket_successes is 'Successes in each bucket.';
comment on column holdfast.circuit_breaker_counts.consecutive_failures is 'With no success reported in between.';
comment on column holdfast.circuit_breaker_counts.rules is 'The options of the isolate that reported last; times in milliseconds.';
comment on column holdfast.circuit_breaker_counts.reported_at is 'When calls were last counted.';

alter table holdfast.circuit_breaker_counts enable row level security;

create policy "Nobody sees counts of breakers through the API"
    on holdfast.circuit_breaker_counts
    for all
    to anon, authenticated
    using (false)
    with check (false);

grant select on holdfast.circuit_breaker_counts to service_role;


create table holdfast.circuit_breaker_events (
    id bigint generated always as identity primary key,
    name text not null,
    epoch bigint not null,
    from_state text not null,
    to_state text not null,
    forced text,
    reason text not null,
    failures bigint,
    successes bigint,
    reported_by text not null,
    occurred_at timestamptz not null default clock_timestamp(),
    constraint states_are_known check (
        from_state in ('closed', 'open', 'half_open') and to_state in ('closed', 'open', 'half_open')
    )
);

create index circuit_breaker_events_by_time on holdfast.circuit_breaker_events (occurred_at);

comment on table holdfast.circuit_breaker_events is
    'One row for each change of a breaker, written with it. Kept for holdfast.circuit_breaker_retention().';
comment on column holdfast.circuit_breaker_events.name is 'Of the breaker.';
comment on column holdfast.circuit_breaker_events.epoch is 'The one that began.';
comment on column holdfast.circuit_breaker_events.from_state is 'The state before. The same as to_state where only a hand was put on it.';
comment on column holdfast.circuit_breaker_events.to_state is 'The state from then on.';
comment on column holdfast.circuit_breaker_events.forced is 'open or closed where it is held so from then on.';
comment on column holdfast.circuit_breaker_events.reason is 'The rule that tripped it, how the probe ended, or what was given by hand.';
comment on column holdfast.circuit_breaker_events.failures is 'Of all isolates within the window, where a rule tripped it; else null.';
comment on column holdfast.circuit_breaker_events.successes is 'As failures.';
comment on column holdfast.circuit_breaker_events.reported_by is 'The application name of the connection: whose report or hand it was.';

alter table holdfast.circuit_breaker_events enable row level security;

create policy "Nobody sees events of breakers through the API"
    on holdfast.circuit_breaker_events
    for all
    to anon, authenticated
    using (false)
    with check (false);

grant select on holdfast.circuit_breaker_events to service_role;


create or replace function holdfast.change_circuit_breaker(
    p_name text,
    p_state text,
    p_reason text,
    p_cooldown_ms float8,
    p_forced text default null,
    p_failures bigint default null,
    p_successes bigint default null
)
returns holdfast.circuit_breakers
language plpgsql
volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_now timestamptz := clock_timestamp();
    v_from text;
    v_breaker holdfast.circuit_breakers;
begin
    select b.state into v_from from holdfast.circuit_breakers b where b.name = p_name for update;

    update holdfast.circuit_breakers b
    set state = p_state,
        epoch = b.epoch + 1,
        forced = p_forced,
        reason = case
            when p_state = 'half_open' then b.reason
            when p_state = 'open' or p_forced is not null then p_reason
        end,
        opened_at = case p_state when 'open' then v_now when 'half_open' then b.opened_at end,
        retry_at = case
            when p_state = 'open' and p_forced is null then v_now + p_cooldown_ms * interval '1 millisecond'
        end,
        probe_tokens = '{}',
        probes_leased_until = '{}',
        probes_succeeded = 0,
        changed_at = v_now
    where b.name = p_name
    returning b.* into v_breaker;

    insert into holdfast.circuit_breaker_events (
        name, epoch, from_state, to_state, forced, reason, failures, successes, reported_by, occurred_at
    )
    values (
        p_name, v_breaker.epoch, v_from, p_state, p_forced, p_reason, p_failures, p_successes,
        left(current_setting('application_name'), 100), v_now
    );

    return v_breaker;
end;
$$;

comment on function holdfast.change_circuit_breaker(text, text, text, float8, text, bigint, bigint) is
    'Begins the next epoch of a breaker that is there, and writes its event. The caller holds the lock of the row and '
    'has looked whether the change is due.';


create or replace function holdfast.force_circuit_breaker(
    p_name text,
    p_to text,
    p_reason text default null,
    p_rules jsonb default null
)
returns jsonb
language plpgsql
volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_rules jsonb := p_rules;
    v_report jsonb;
begin
    if p_to not in ('open', 'closed') then
        raise exception 'Cannot force circuit breaker "%": it can be held open or closed, or be reset with null, received %',
            p_name, p_to
            using errcode = 'HF020';
    end if;

    if v_rules is null then
        -- By hand: a name that was mistyped must not look as if something were stopped.
        if not exists (select from holdfast.circuit_breakers b where b.name = p_name) then
            raise exception 'Cannot force circuit breaker "%": none of this name has counted a call yet', p_name
                using errcode = 'HF020', hint = 'holdfast.circuit_breaker_status lists them.';
        end if;
        select c.rules into v_rules from holdfast.circuit_breaker_counts c where c.name = p_name;
    end if;

    v_report := jsonb_build_object(
        'name', p_name,
        'rules', coalesce(v_rules, holdfast.default_circuit_breaker_rules()),
        'epoch', 0, 'successes', 0, 'failures', 0, 'trailingFailures', 0
    );
    perform holdfast.require_circuit_breaker_reports(jsonb_build_array(v_report));

    insert into holdfast.circuit_breakers (name) values (p_name) on conflict (name) do nothing;

    perform holdfast.change_circuit_breaker(
        p_name,
        coalesce(p_to, 'closed'),
        left(coalesce(nullif(p_reason, ''), case when p_to is null then 'reset' else 'by hand' end), 500),
        (v_report #>> '{rules,cooldownMs}')::float8,
        p_to
    );

    return holdfast.exchange_circuit_breakers(jsonb_build_array(v_report)) -> 0;
end;
$$;

comment on function holdfast.force_circuit_breaker(text, text, text, jsonb) is
    'Holds a breaker open or closed, with a reason; null: closed, by its rules again, what was counted forgotten. Always '
    'a new epoch. Functions hear of it at their next exchange. Returns the state it has now.';


create or replace function holdfast.default_circuit_breaker_rules()
returns jsonb
language sql
immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select '{
        "failureThreshold": 5, "consecutiveFailures": null, "failureRate": null, "minimumVolume": 20,
        "windowMs": 30000, "cooldownMs": 30000, "halfOpenProbes": 1, "probeLeaseMs": 30000
    }'::jsonb
$$;

comment on function holdfast.default_circuit_breaker_rules() is
    'Those of circuitBreakers.get(name) without options, for a breaker of which no call was counted.';


create or replace view holdfast.circuit_breaker_status
with (security_invoker = true)
as
select
    b.name,
    b.state,
    case
        when b.forced is not null then format('Held %s by hand: %s', b.forced, b.reason)
        when b.state = 'open' and b.retry_at > clock_timestamp() then format(
            'Calls are refused (%s); a probe may be made in %s s',
            b.reason, ceil(extract(epoch from b.retry_at - clock_timestamp()))
        )
        when b.state = 'open' then format('Calls are refused (%s); the next call is the probe', b.reason)
        when b.state = 'half_open' and clock_timestamp() < any (b.probes_leased_until) then format(
            'A probe is under way (%s); other calls are refused', b.reason
        )
        when b.state = 'half_open' then format('The next call is a probe (%s); other calls are refused', b.reason)
        else 'Calls are made'
    end as in_words,
    counted.failures,
    counted.successes,
    round(counted.failures / nullif(counted.failures + counted.successes, 0), 3) as failure_rate,
    c.consecutive_failures,
    b.opened_at,
    b.changed_at,
    c.reported_at,
    c.rules
from holdfast.circuit_breakers b
left join holdfast.circuit_breaker_counts c on c.name = b.name and c.epoch = b.epoch
cross join lateral (
    select coalesce(sum(k.failures), 0) as failures, coalesce(sum(k.successes), 0) as successes
    from unnest(c.bucket_starts, c.bucket_failures, c.bucket_successes) as k (start, failures, successes)
    where k.start > clock_timestamp() - greatest((c.rules -> 'windowMs')::float8, 1) * interval '1 millisecond'
) as counted;

comment on view holdfast.circuit_breaker_status is
    'Each breaker in plain words, with what all isolates counted within its window. '
    'select holdfast.force_circuit_breaker(name, ''open'', reason) holds one open, ''closed'' closed, null gives it back '
    'to its rules.';

grant select on holdfast.circuit_breaker_status to service_role;


create or replace function holdfast.circuit_breaker_retention()
returns interval
language sql
immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select interval '30 days'
$$;

comment on function holdfast.circuit_breaker_retention() is 'How long the events of breakers are kept.';


create or replace function holdfast.purge_circuit_breaker_events(p_batch bigint default 50000)
returns bigint
language sql
volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
    with due as (
        select e.id
        from holdfast.circuit_breaker_events e
        where e.occurred_at <= now() - holdfast.circuit_breaker_retention()
        order by e.occurred_at
        limit p_batch
        for update skip locked
    ),
    purged as (
        delete from holdfast.circuit_breaker_events e
        using due
        where e.id = due.id
        returning 1
    )
    select count(*) from purged
$$;

comment on function holdfast.purge_circuit_breaker_events(bigint) is
    'Deletes events whose time is over, the oldest first, at most p_batch of them. Returns how many.';


select cron.schedule(
    'holdfast_purge_circuit_breaker_events', '23 * * * *', 'select holdfast.purge_circuit_breaker_events()'
);
