-- What: what isolates have loaded and share, each entry with the lease of whoever loads it.
-- Why: isolates are many and young: without a shared tier each of them loads everything for itself.
-- Who: the connection's own role. The API roles have no rights here; service_role reads the table.

create sequence holdfast.cache_tokens;

comment on sequence holdfast.cache_tokens is
    'Fencing tokens: each lease on an entry gets a greater one, also after a crash has emptied the table.';


-- Unlogged: after a crash of the server it is empty, and everything is loaded anew.
create unlogged table holdfast.cache_entries (
    cache text not null,
    key text not null,
    version text not null,
    tags text[] not null default '{}',
    value text,
    fresh_until timestamptz,
    expires_at timestamptz not null,
    fence bigint not null,
    lease_token bigint,
    leased_until timestamptz,
    constraint names_are_short check (length(cache) <= 63 and length(key) <= 255),
    constraint a_value_has_a_time check (value is null or fresh_until is not null),
    constraint a_lease_has_token_and_end check ((lease_token is null) = (leased_until is null)),
    primary key (cache, key)
)
-- Room on each page for the lease, which comes and goes.
with (fillfactor = 80);

create index cache_entries_by_expiry on holdfast.cache_entries (expires_at);

create index cache_entries_by_tag on holdfast.cache_entries using gin (tags) where tags <> '{}';

comment on table holdfast.cache_entries is
    'One row for each key that was loaded, or that somebody loads. Deleting rows is safe at any time: it invalidates them.';
comment on column holdfast.cache_entries.cache is 'Name of the cache.';
comment on column holdfast.cache_entries.key is 'As given, or its SHA-256 where it is long or holds control characters.';
comment on column holdfast.cache_entries.version is 'Of the schema it was loaded under; for every other it is absent.';
comment on column holdfast.cache_entries.tags is 'By which it is invalidated together with others.';
comment on column holdfast.cache_entries.value is 'JSON; null where nothing is loaded yet, or undefined was.';
comment on column holdfast.cache_entries.fresh_until is 'End of its time to live; null where nothing is loaded yet.';
comment on column holdfast.cache_entries.expires_at is 'From then on the row counts as absent, and may be purged.';
comment on column holdfast.cache_entries.fence is
    'Lowest token that may still store: a load that began before an invalidation, or before what is stored, may not.';
comment on column holdfast.cache_entries.lease_token is 'Of whoever loads it.';
comment on column holdfast.cache_entries.leased_until is 'From then on another may load it.';

alter table holdfast.cache_entries enable row level security;

create policy "Nobody sees what is cached through the API"
    on holdfast.cache_entries
    for all
    to anon, authenticated
    using (false)
    with check (false);

grant select on holdfast.cache_entries to service_role;


-- Gives the right to load, where the entry is not fresh for long enough and nobody else has it. A row of another
-- version, or whose time is over, begins anew; one that is merely stale keeps its value for whoever may serve it.
create or replace function holdfast.lease_cache_entry(
    p_cache text,
    p_key text,
    p_version text,
    p_tags text[],
    p_refresh_below_ms double precision,
    p_lease_ms double precision
)
returns bigint
language sql
volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
    insert into holdfast.cache_entries as e (
        cache, key, version, tags, expires_at, fence, lease_token, leased_until
    )
    select
        p_cache, p_key, p_version, p_tags, lease.ends_at, lease.token, lease.token, lease.ends_at
    from (
        select
            nextval('holdfast.cache_tokens') as token,
            clock_timestamp() + p_lease_ms * interval '1 millisecond' as ends_at
    ) lease
    on conflict (cache, key) do update
    set version = excluded.version,
        tags = case
            when e.version <> excluded.version then excluded.tags
            when e.tags @> excluded.tags then e.tags
            else e.tags || excluded.tags
        end,
        value = case when e.version = excluded.version and e.expires_at > clock_timestamp() then e.value end,
        fresh_until = case
            when e.version = excluded.version and e.expires_at > clock_timestamp() then e.fresh_until
        end,
        expires_at = greatest(e.expires_at, excluded.expires_at),
        fence = case when e.version = excluded.version then e.fence else excluded.fence end,
        lease_token = excluded.lease_token,
        leased_until = excluded.leased_until
    where e.version <> excluded.version
        or (
            (e.leased_until is null or e.leased_until <= clock_timestamp())
            and (
                e.fresh_until is null
                or e.fresh_until <= clock_timestamp() + p_refresh_below_ms * interval '1 millisecond'
            )
        )
    returning e.lease_token
$$;

comment on function holdfast.lease_cache_entry(text, text, text, text[], double precision, double precision) is
    'The token of a new lease on the entry; null where it is fresh, or somebody else loads it.';


-- Many entries with one look; what is fresh is read and nothing is written. In the order of the keys, so that two
-- who ask for the same ones wait for each other and for nothing else. The settings make one plan do for all calls,
-- and keep it, made when the table was empty, from reading all of it later.
create or replace function holdfast.read_cache_entries(p_asked jsonb)
returns table (
    nth bigint,
    value text,
    fresh_ms double precision,
    token bigint,
    busy boolean
)
language plpgsql
volatile
security invoker
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    v_asked record;
begin
    for v_asked in
        select
            a.*,
            e.value,
            extract(epoch from e.fresh_until - clock_timestamp())::double precision * 1000 as fresh_ms
        from rows from (
            jsonb_to_recordset(p_asked) as (
                cache text, key text, version text, tags text[], "refreshBelowMs" double precision,
                "leaseMs" double precision
            )
        ) with ordinality as a (cache, key, version, tags, refresh_below_ms, lease_ms, nth)
        left join holdfast.cache_entries e
            on e.cache = a.cache
            and e.key = a.key
            and e.version = a.version
            and e.fresh_until is not null
            and e.expires_at > clock_timestamp()
        order by a.cache, a.key
    loop
        nth := v_asked.nth;
        value := v_asked.value;
        fresh_ms := v_asked.fresh_ms;
        token := null;
        busy := false;
        if v_asked.lease_ms > 0 and (fresh_ms is null or fresh_ms <= v_asked.refresh_below_ms) then
            token := holdfast.lease_cache_entry(
                v_asked.cache, v_asked.key, v_asked.version, v_asked.tags, v_asked.refresh_below_ms, v_asked.lease_ms
            );
            busy := token is null;
        end if;
        return next;
    end loop;
end;
$$;

comment on function holdfast.read_cache_entries(jsonb) is
    'What is known of each entry: its JSON and how long it is fresh (null where it is absent), a token where the caller is to load it, busy where '
    'somebody else does.';


create or replace function holdfast.write_cache_entry(
    p_cache text,
    p_key text,
    p_version text,
    p_tags text[],
    p_token bigint,
    p_value text,
    p_ttl_ms double precision,
    p_keep_ms double precision
)
returns boolean
language sql
volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
    with written as (
        update holdfast.cache_entries e
        set tags = p_tags,
            value = p_value,
            fresh_until = clock_timestamp() + p_ttl_ms * interval '1 millisecond',
            expires_at = clock_timestamp() + (p_ttl_ms + p_keep_ms) * interval '1 millisecond',
            fence = p_token + 1,
            lease_token = null,
            leased_until = null
        where e.cache = p_cache
            and e.key = p_key
            and e.version = p_version
            and e.fence <= p_token
        returning 1
    )
    select exists (select from written)
$$;

comment on function holdfast.write_cache_entry(
    text, text, text, text[], bigint, text, double precision, double precision
) is
    'Stores what was loaded under that token. False where the entry was invalidated, or stored by a later lease, since.';


create or replace function holdfast.release_cache_entry(p_cache text, p_key text, p_token bigint)
returns void
language sql
volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
    update holdfast.cache_entries e
    set lease_token = null,
        leased_until = null
    where e.cache = p_cache
        and e.key = p_key
        and e.lease_token = p_token
$$;

comment on function holdfast.release_cache_entry(text, text, bigint) is
    'Ends a lease without an entry, so that another may load. Nothing where it is not this token''s any more.';


create or replace function holdfast.invalidate_cache(
    p_cache text,
    p_keys text[] default null,
    p_tags text[] default null
)
returns bigint
language plpgsql
volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_deleted bigint := 0;
    v_count bigint;
begin
    if p_keys is null and p_tags is null then
        with due as (
            select e.key
            from holdfast.cache_entries e
            where e.cache = p_cache
            order by e.key
            for update
        )
        delete from holdfast.cache_entries e
        using due
        where e.cache = p_cache
            and e.key = due.key;
        get diagnostics v_deleted = row_count;
        return v_deleted;
    end if;

    if p_keys is not null then
        with due as (
            select e.key
            from holdfast.cache_entries e
            where e.cache = p_cache
                and e.key = any(p_keys)
            order by e.key
            for update
        )
        delete from holdfast.cache_entries e
        using due
        where e.cache = p_cache
            and e.key = due.key;
        get diagnostics v_deleted = row_count;
    end if;

    if p_tags is not null then
        with due as (
            select e.key
            from holdfast.cache_entries e
            where e.cache = p_cache
                and e.tags <> '{}'
                and e.tags && p_tags
            order by e.key
            for update
        )
        delete from holdfast.cache_entries e
        using due
        where e.cache = p_cache
            and e.key = due.key;
        get diagnostics v_count = row_count;
        v_deleted := v_deleted + v_count;
    end if;
    return v_deleted;
end;
$$;

comment on function holdfast.invalidate_cache(text, text[], text[]) is
    'Deletes the entries with one of these keys or tags, or all of the cache where neither is given, and ends their '
    'leases: what is being loaded now is not stored. Returns how many. For admins: other isolates serve copies from '
    'memory for their localTtlMs at most.';


create or replace function holdfast.purge_cache_entries(p_batch bigint default 500000)
returns bigint
language sql
volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
    with due as (
        select e.cache, e.key
        from holdfast.cache_entries e
        where e.expires_at <= now()
        order by e.expires_at
        limit p_batch
        for update skip locked
    ),
    purged as (
        delete from holdfast.cache_entries e
        using due
        where e.cache = due.cache
            and e.key = due.key
        returning 1
    )
    select count(*) from purged
$$;

comment on function holdfast.purge_cache_entries(bigint) is
    'Deletes entries whose time is over, the oldest first, at most p_batch of them. Returns how many.';


select cron.schedule('holdfast_purge_cache_entries', '*/2 * * * *', 'select holdfast.purge_cache_entries()');
