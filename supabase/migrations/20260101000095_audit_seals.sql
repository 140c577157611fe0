-- What: seals over the changes of the audit trail: each names the changes it covers and carries the hash of the one before.
-- Why: whoever can get past the guards of the trail cannot change, remove or slip in a row without breaking the chain.
-- Who: pg_cron runs audit.seal() each minute. No API role has a right here.

create table audit.seals (
    month date not null,
    number bigint not null,
    link bigint not null,
    -- squawk-ignore prefer-bigint-over-smallint
    version smallint not null,
    change_ids int8multirange not null,
    change_count bigint not null,
    changes_hash bytea not null,
    row_digests bytea not null,
    first_at timestamptz,
    last_at timestamptz,
    last_transaction bigint,
    backdated_ids int8multirange not null,
    retired_month date,
    sealed_at timestamptz not null,
    transaction_id bigint not null,
    cluster bigint not null,
    complete boolean not null,
    sealed_through pg_snapshot not null,
    base_id bigint not null,
    greatest_id bigint not null,
    previous_hash bytea not null,
    hash bytea not null,
    constraint seals_of_a_month_are_counted primary key (month, number),
    constraint seals_are_one_chain unique (link),
    constraint counting_starts_at_one check (number >= 1 and link >= 1),
    constraint the_version_is_known check (version = 1),
    constraint a_seal_is_small check (change_count between 0 and 50000),
    constraint each_change_has_a_digest check (octet_length(row_digests) = 8 * change_count),
    constraint hashes_are_whole check (
        octet_length(changes_hash) = 32 and octet_length(previous_hash) = 32 and octet_length(hash) = 32
    )
)
-- Whoever walks the chain reads no digests.
with (toast_tuple_target = 128);

alter table audit.seals alter column row_digests set storage external;

create index seals_by_transaction on audit.seals (last_transaction);

comment on table audit.seals is
    'One row for each batch of at most 50,000 changes of one month (of UTC). All seals are one chain, in order of link; '
    'those of a month are numbered for people. audit.verify() reads them, nothing else needs them.';
comment on column audit.seals.month is
    'First day of the month in which the changes occurred; -infinity and infinity for times outside the years 1 to 9999.';
comment on column audit.seals.number is 'Counts the seals of the month, from 1.';
comment on column audit.seals.link is
    'Counts all seals, from 1. Those of retired months are gone: audit.retired_months names them.';
comment on column audit.seals.version is 'Of the text that is hashed: its columns and their order.';
comment on column audit.seals.change_ids is 'The changes it covers.';
comment on column audit.seals.change_count is 'How many they are.';
comment on column audit.seals.changes_hash is
    'SHA-256 of the SHA-256 digests of its changes in order of id; of a retirement: of its line in audit.retired_months.';
comment on column audit.seals.row_digests is
    'The first 8 bytes of each digest in order of id. They prove nothing: they tell which change does not fit.';
comment on column audit.seals.first_at is 'Least occurred_at of its changes.';
comment on column audit.seals.last_at is 'Greatest occurred_at of its changes.';
comment on column audit.seals.last_transaction is 'Greatest transaction_id of its changes.';
comment on column audit.seals.backdated_ids is
    'Changes that claim a time over an hour before an earlier seal, though their transaction began after it.';
comment on column audit.seals.retired_month is
    'Where this seal covers no changes, but says that a month was retired: which.';
comment on column audit.seals.sealed_at is 'When the transaction began that wrote it.';
comment on column audit.seals.transaction_id is 'The transaction that wrote it.';
comment on column audit.seals.cluster is 'System identifier of the server whose transaction numbers sealed_through means.';
comment on column audit.seals.complete is
    'Whether with it all changes were sealed of the transactions that are over in sealed_through. '
    'False for all but the last seal of a run.';
comment on column audit.seals.sealed_through is
    'A snapshot of the database: transactions that are over in it can add no more changes.';
comment on column audit.seals.base_id is 'Changes up to this id were made on another server, and are sealed.';
comment on column audit.seals.greatest_id is 'Greatest id that it or any seal before covers.';
comment on column audit.seals.previous_hash is 'Hash of the seal before; zeros for the first of all.';
comment on column audit.seals.hash is 'SHA-256 of all columns but row_digests, so of all seals before as well.';


create table audit.retired_months (
    noted_link bigint primary key,
    month date not null,
    retired_at timestamptz not null,
    retention interval not null,
    changes bigint not null,
    last_number bigint not null,
    last_hash bytea,
    links int8multirange not null,
    link_hashes bytea[] not null,
    constraint each_run_of_links_has_its_hash check (
        isempty(links) = (cardinality(link_hashes) = 0) and (last_hash is null) = (last_number = 0)
    )
);

comment on table audit.retired_months is
    'One row for each month whose changes and seals were dropped because its time was over; what is left of them.';
comment on column audit.retired_months.noted_link is 'The seal that says so: this row cannot be altered unseen.';
comment on column audit.retired_months.month is 'First day of the month.';
comment on column audit.retired_months.retired_at is 'When it was dropped.';
comment on column audit.retired_months.retention is 'audit.settings.retention at that time.';
comment on column audit.retired_months.changes is 'How many changes its seals had covered.';
comment on column audit.retired_months.last_number is 'Number of its last seal; 0 where it had none.';
comment on column audit.retired_months.last_hash is 'Hash of its last seal.';
comment on column audit.retired_months.links is 'The links of the chain that went with it.';
comment on column audit.retired_months.link_hashes is
    'For each unbroken run of links the hash of its last: the seal after it is checked by this.';

alter table audit.seals enable row level security;
alter table audit.retired_months enable row level security;

create policy "Nobody sees the seals through the API"
    on audit.seals for all to anon, authenticated using (false) with check (false);

create policy "Nobody sees the retired months through the API"
    on audit.retired_months for all to anon, authenticated using (false) with check (false);


create or replace function audit.keep_seals()
returns trigger
language plpgsql
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    if exists (select from audit.retired_months as r where r.month = old.month and r.links @> old.link) then
        return old;
    end if;
    raise exception 'Cannot delete seal % of %: its month is not retired', old.number, audit.month_name(old.month)
        using errcode = 'HF451',
            hint = 'audit.drop_expired_partitions() retires whole months when audit.settings.retention is over.';
end;
$$;

comment on function audit.keep_seals() is 'Trigger: seals go with their month and in no other way.';

create trigger append_only before update on audit.seals
    for each row execute function audit.append_only();
create trigger append_only_truncate before truncate on audit.seals
    for each statement execute function audit.append_only();
create trigger keep_seals before delete on audit.seals
    for each row execute function audit.keep_seals();
create trigger append_only before update or delete on audit.retired_months
    for each row execute function audit.append_only();
create trigger append_only_truncate before truncate on audit.retired_months
    for each statement execute function audit.append_only();


create or replace function audit.month_of(p_time timestamptz)
returns date
language sql
immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select case
        when p_time < '0001-01-01 00:00+00'::timestamptz then '-infinity'::date
        when p_time >= '10000-01-01 00:00+00'::timestamptz then 'infinity'::date
        else date_trunc('month', p_time at time zone 'UTC')::date
    end
$$;

comment on function audit.month_of(timestamptz) is
    'First day of the month of UTC; -infinity and infinity for times outside the years 1 to 9999. Takes every time there is.';


create or replace function audit.month_name(p_month date)
returns text
language sql
immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select case p_month
        when '-infinity' then 'the time before year 1'
        when 'infinity' then 'the time after year 9999'
        else to_char(p_month, 'YYYY-MM')
    end
$$;

comment on function audit.month_name(date) is 'A month as people read it: 2026-11.';


-- One digest for each change that is there, whatever the settings of the session. JSON tells null, an empty string and
-- the ends of values apart; the columns are named so that one that is added later does not change old digests. The
-- planner's settings make one plan do for all calls: a look at the index on id for each run of ids.
create or replace function audit.change_digests(p_month date, p_ids int8multirange)
returns table (id bigint, occurred_at timestamptz, digest bytea)
language plpgsql
stable
security invoker
rows 50000
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_from timestamptz := case p_month when 'infinity' then '10000-01-01' else p_month end::timestamptz;
    v_to timestamptz := case p_month when '-infinity' then '0001-01-01' else p_month + interval '1 month' end;
begin
    -- Both ends belong to it: no month ends between two microseconds, and "infinity" has no end.
    if p_month <> 'infinity' then
        v_to := v_to - interval '1 microsecond';
    end if;
    return query
    select
        c.id,
        c.occurred_at,
        sha256(convert_to(
            json_build_array(
                c.id, c.occurred_at, c.transaction_id, c.actor_id, c.actor_role, c.ip, c.user_agent, c.request_id,
                c.function_name, c.schema_name, c.table_name, c.object_identity, c.operation, c.primary_key, c.details
            )::text,
            'UTF8'
        ))
    from unnest(p_ids) as r (ids)
    join audit.database_changes as c on c.id >= lower(r.ids) and c.id < upper(r.ids)
    where c.occurred_at between v_from and v_to;
end;
$$;

comment on function audit.change_digests(date, int8multirange) is
    'SHA-256 of each of these changes of a month, as far as they are there: over a JSON array of all columns, times in UTC.';


create or replace function audit.hash_changes(
    p_month date,
    p_ids int8multirange,
    out change_count bigint,
    out changes_hash bytea,
    out row_digests bytea
)
language sql
stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select
        count(*),
        sha256(coalesce(string_agg(d.digest, ''), '')),
        coalesce(string_agg(substr(d.digest, 1, 8), ''), '')
    from (select c.digest from audit.change_digests(p_month, p_ids) as c order by c.id, c.digest) as d
$$;

comment on function audit.hash_changes(date, int8multirange) is
    'What a seal says of its changes, from the changes themselves.';


create or replace function audit.seal_hash(p_seal audit.seals)
returns bytea
language sql
stable
security invoker
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
    select sha256(convert_to(
        json_build_array(
            p_seal.version, p_seal.month, p_seal.number, p_seal.link, p_seal.change_ids, p_seal.change_count,
            encode(p_seal.changes_hash, 'hex'), p_seal.first_at, p_seal.last_at, p_seal.last_transaction,
            p_seal.backdated_ids, p_seal.retired_month, p_seal.sealed_at, p_seal.transaction_id, p_seal.cluster,
            p_seal.complete, p_seal.sealed_through, p_seal.base_id, p_seal.greatest_id,
            encode(p_seal.previous_hash, 'hex')
        )::text,
        'UTF8'
    ))
$$;

comment on function audit.seal_hash(audit.seals) is
    'The hash of a seal: over its own columns and the hash of the one before.';


create or replace function audit.cluster_id()
returns bigint
language sql
stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select system_identifier from pg_catalog.pg_control_system()
$$;

comment on function audit.cluster_id() is 'Which server this is: its transaction numbers mean nothing on another.';


-- The changes that the next seals will cover. A transaction that was over when the last complete seal was made can add
-- no more: whatever claims to be of one and has no seal was slipped in, and is left for audit.verify() to name.
-- On another server than that of the last seal (after a restore) transactions are numbered anew, so ids decide as well.
create or replace function audit.unsealed_changes(p_limit bigint default null)
returns table (id bigint, occurred_at timestamptz, transaction_id bigint, month date)
language plpgsql
stable
security invoker
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set enable_seqscan = off
set plan_cache_mode = force_custom_plan
as $$
declare
    v_last audit.seals;
    v_moved boolean;
    -- Below this one all transactions were over.
    v_oldest bigint;
    v_sealed int8multirange;
    v_own bigint := pg_current_xact_id_if_assigned()::text::bigint;
    -- No range can end with the greatest number there is; no sequence gives it either.
    v_no_id constant bigint := 9223372036854775807;
    -- Nearly all are of this month: they need no function to say so.
    v_this_month date := audit.month_of(now());
    v_from timestamptz := v_this_month::timestamptz;
    v_to timestamptz := v_this_month + interval '1 month';
begin
    select s.* into v_last from audit.seals as s where s.complete order by s.link desc limit 1;
    v_last.link := coalesce(v_last.link, 0);
    v_last.sealed_through := coalesce(v_last.sealed_through, '3:3:');
    v_last.base_id := coalesce(v_last.base_id, 0);
    v_moved := v_last.cluster <> audit.cluster_id();
    v_oldest := pg_snapshot_xmin(v_last.sealed_through)::text::bigint;

    if v_moved then
        select coalesce(range_agg(r.ids), '{}')
        into v_sealed
        from audit.seals as s
        cross join unnest(s.change_ids) as r (ids)
        where s.last_transaction >= v_oldest or s.link > v_last.link;

        return query
        select
            c.id,
            c.occurred_at,
            c.transaction_id,
            case
                when c.occurred_at >= v_from and c.occurred_at < v_to then v_this_month
                else audit.month_of(c.occurred_at)
            end
        from audit.database_changes as c
        where (
                c.id > v_last.greatest_id
                or c.transaction_id >= v_oldest
                and not pg_visible_in_snapshot(c.transaction_id::text::xid8, v_last.sealed_through)
            )
            and c.id < v_no_id
            and not v_sealed @> c.id
            and c.transaction_id is distinct from v_own
        order by c.transaction_id, c.id
        limit p_limit;
    else
        -- Those of earlier servers may bear greater numbers: they are below base_id, and cost nothing.
        select coalesce(range_agg(r.ids), '{}')
        into v_sealed
        from audit.seals as s
        cross join unnest(s.change_ids) as r (ids)
        where s.last_transaction >= v_oldest and upper(s.change_ids) > v_last.base_id + 1;

        return query
        select
            c.id,
            c.occurred_at,
            c.transaction_id,
            case
                when c.occurred_at >= v_from and c.occurred_at < v_to then v_this_month
                else audit.month_of(c.occurred_at)
            end
        from audit.database_changes as c
        where c.transaction_id >= v_oldest
            and not pg_visible_in_snapshot(c.transaction_id::text::xid8, v_last.sealed_through)
            and c.id > v_last.base_id
            and c.id < v_no_id
            and not v_sealed @> c.id
            and c.transaction_id is distinct from v_own
        order by c.transaction_id, c.id
        limit p_limit;
    end if;
end;
$$;

comment on function audit.unsealed_changes(bigint) is
    'Committed changes that no seal covers yet, by transaction; not those of the own transaction.';
