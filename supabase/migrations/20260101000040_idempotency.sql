-- What: idempotency keys, each with the answer its request is replayed with, or with the lease of whoever runs it.
-- Why: an effect and the answer to its request commit together, so that a crash leaves both or neither.
-- Who: the connection's own role calls these. The API roles have no rights here; service_role reads the table.

create sequence holdfast.idempotency_lease_tokens;

comment on sequence holdfast.idempotency_lease_tokens is
    'Fencing tokens: each claim of a leased key gets a greater one, also after the key was purged.';


create table holdfast.idempotency_keys (
    id bytea primary key,
    fingerprint bytea not null,
    expires_at timestamptz not null,
    created_at timestamptz not null default now(),
    leased_until timestamptz,
    lease_token bigint,
    effect_id uuid,
    attempt bigint,
    -- squawk-ignore prefer-bigint-over-smallint
    status smallint,
    route text not null,
    caller_id text,
    request_id text,
    headers text,
    body text,
    -- Three rather than one a column: each is compiled anew for every statement that writes.
    constraint digests_are_whole check (octet_length(id) = 32 and octet_length(fingerprint) = 32),
    constraint an_answer_has_status_headers_and_body check (
        (status between 100 and 599 and headers is not null and body is not null)
        or (status is null and headers is null and body is null and lease_token is not null)
    ),
    constraint a_lease_has_token_end_effect_and_attempt check (
        (lease_token is not null and leased_until is not null and effect_id is not null and attempt >= 1)
        or (lease_token is null and leased_until is null and effect_id is null and attempt is null)
    )
);

create index idempotency_keys_by_expiry on holdfast.idempotency_keys (expires_at);

comment on table holdfast.idempotency_keys is
    'One row for each key that was answered, or that a leased route runs. A key that an atomic route runs has none yet.';
comment on column holdfast.idempotency_keys.id is 'SHA-256 of the caller''s identity, the route and the key.';
comment on column holdfast.idempotency_keys.fingerprint is 'SHA-256 of what was asked.';
comment on column holdfast.idempotency_keys.expires_at is 'From then on the key counts as new, and the row may be purged.';
comment on column holdfast.idempotency_keys.leased_until is 'Nobody else may run it before. Leased routes only, as the next three.';
comment on column holdfast.idempotency_keys.lease_token is 'Fencing token of the last claim: only its holder completes or releases.';
comment on column holdfast.idempotency_keys.effect_id is
    'What outside services get as their idempotency key: the same in every attempt.';
comment on column holdfast.idempotency_keys.attempt is 'Claims so far. Above 1 an earlier one ended without an answer.';
comment on column holdfast.idempotency_keys.status is 'HTTP status of the answer; null while there is none.';
comment on column holdfast.idempotency_keys.route is 'Method and path as declared.';
comment on column holdfast.idempotency_keys.caller_id is 'The user, where one was signed in.';
comment on column holdfast.idempotency_keys.request_id is 'The request that claimed it last.';
comment on column holdfast.idempotency_keys.headers is 'The handler''s headers: a JSON list of pairs.';
comment on column holdfast.idempotency_keys.body is 'Replayed byte for byte.';

alter table holdfast.idempotency_keys enable row level security;

create policy "Nobody sees keys through the API"
    on holdfast.idempotency_keys
    for all
    to anon, authenticated
    using (false)
    with check (false);

grant select on holdfast.idempotency_keys to service_role;


-- The replay path: many keys with one look, nothing is written. A key without a row may be in flight in an atomic
-- route: whoever holds the lock of its request says so (see claim_idempotency_key). The settings make one plan
-- do for all calls, and keep it, made when the table was empty, from reading all of it later.
create or replace function holdfast.find_idempotent_answers(p_ids bytea[], p_fingerprints bytea[])
returns table (
    nth bigint,
    outcome text,
    retry_after_ms bigint,
    status smallint,
    headers text,
    body text
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
begin
    return query
    select
        asked.nth,
        case
            when k.fingerprint <> asked.fingerprint then 'mismatch'
            when k.status is not null then 'replay'
            when k.leased_until > clock_timestamp() then 'in_progress'
            when k.id is null and not pg_try_advisory_xact_lock_shared(
                ('x' || encode(substring(sha256(asked.id || asked.fingerprint), 1, 8), 'hex'))::bit(64)::bigint
            ) then 'in_progress'
            else 'absent'
        end,
        case
            when k.status is null
                then ceil(extract(epoch from k.leased_until - clock_timestamp()) * 1000)::bigint
        end,
        k.status,
        k.headers,
        k.body
    from unnest(p_ids, p_fingerprints) with ordinality as asked (id, fingerprint, nth)
    left join holdfast.idempotency_keys k
        on k.id = asked.id
        and k.expires_at > clock_timestamp();
end;
$$;

comment on function holdfast.find_idempotent_answers(bytea[], bytea[]) is
    'What is known of each key, claiming none: replay (with the answer), mismatch, in_progress or absent.';


-- Two locks for as long as the transaction lasts. The first is of the request, the second of its key: whoever gets
-- the first and not the second meets another request with the same key. What is read after both is what committed
-- before them; a serializable transaction that read here would conflict with every other whose key lies on the same
-- page of the index, and a repeatable read does not see what committed meanwhile: there the insert of the answer
-- decides.
create or replace function holdfast.claim_idempotency_key(p_id bytea, p_fingerprint bytea)
returns text
language plpgsql
volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_outcome text := 'claimed';
    v_fingerprint bytea;
    v_status smallint;
    v_leased_until timestamptz;
begin
    if not pg_try_advisory_xact_lock(
        ('x' || encode(substring(sha256(p_id || p_fingerprint), 1, 8), 'hex'))::bit(64)::bigint
    ) then
        v_outcome := 'in_progress';
    elsif not pg_try_advisory_xact_lock(('x' || encode(substring(p_id, 1, 8), 'hex'))::bit(64)::bigint) then
        v_outcome := 'mismatch';
    end if;

    if current_setting('transaction_isolation') = 'read committed' then
        select k.fingerprint, k.status, k.leased_until
        into v_fingerprint, v_status, v_leased_until
        from holdfast.idempotency_keys k
        where k.id = p_id
            and k.expires_at > clock_timestamp();

        if v_fingerprint <> p_fingerprint then
            v_outcome := 'mismatch';
        elsif v_status is not null then
            v_outcome := 'replay';
        elsif v_leased_until > clock_timestamp() then
            v_outcome := 'in_progress';
        end if;
    end if;

    if v_outcome <> 'claimed' then
        raise exception 'Cannot run the request: its idempotency key is %', v_outcome
            using errcode = 'HF010', detail = v_outcome;
    end if;
    return v_outcome;
end;
$$;

comment on function holdfast.claim_idempotency_key(bytea, bytea) is
    'Claims a key for the length of this transaction, without writing. Raises HF010 where the request may not run; the '
    'detail says why: replay, in_progress or mismatch.';


-- Raised by both functions that store an answer.
create or replace function holdfast.require_answer_size(p_body text, p_max_bytes bigint)
returns void
language plpgsql
immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    if octet_length(p_body) > p_max_bytes then
        raise exception 'Cannot store the answer: its body has % bytes, the route stores %',
            octet_length(p_body), p_max_bytes
            using errcode = 'HF011';
    end if;
end;
$$;

comment on function holdfast.require_answer_size(text, bigint) is 'Raises HF011 for a body that is too large to store.';


create or replace function holdfast.store_idempotent_answer(
    p_id bytea,
    p_fingerprint bytea,
    p_route text,
    p_caller_id text,
    p_request_id text,
    p_status smallint,
    p_headers text,
    p_body text,
    p_ttl_ms bigint,
    p_max_bytes bigint
)
returns void
language plpgsql
volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    -- Asked here first: this runs for every write, and a call costs more than the comparison.
    if octet_length(p_body) > p_max_bytes then
        perform holdfast.require_answer_size(p_body, p_max_bytes);
    end if;

    insert into holdfast.idempotency_keys as k (
        id, fingerprint, expires_at, status, route, caller_id, request_id, headers, body
    )
    values (
        p_id, p_fingerprint, clock_timestamp() + p_ttl_ms * interval '1 millisecond', p_status, p_route, p_caller_id,
        p_request_id, p_headers, p_body
    )
    on conflict (id) do update
    set fingerprint = excluded.fingerprint,
        expires_at = excluded.expires_at,
        created_at = excluded.created_at,
        leased_until = null,
        lease_token = null,
        effect_id = null,
        attempt = null,
        status = excluded.status,
        route = excluded.route,
        caller_id = excluded.caller_id,
        request_id = excluded.request_id,
        headers = excluded.headers,
        body = excluded.body
    -- A key whose time is over is new, and so is one that a leased route gave up, before it was declared atomic.
    where k.expires_at <= clock_timestamp()
        or (k.status is null and k.leased_until <= clock_timestamp());

    if not found then
        raise exception 'Cannot store the answer: another request with this idempotency key was faster'
            using errcode = 'HF003';
    end if;
end;
$$;

comment on function holdfast.store_idempotent_answer(
    bytea, bytea, text, text, text, smallint, text, text, bigint, bigint
) is
    'Stores the answer of an atomic route, in its transaction. Raises HF003 where the key has one already, HF011 where '
    'the body is too large.';


create or replace function holdfast.purge_idempotency_keys(p_batch bigint default 50000)
returns bigint
language sql
volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
    with due as (
        select k.id
        from holdfast.idempotency_keys k
        where k.expires_at <= now()
        order by k.expires_at
        limit p_batch
        for update skip locked
    ),
    purged as (
        delete from holdfast.idempotency_keys k
        using due
        where k.id = due.id
        returning 1
    )
    select count(*) from purged
$$;

comment on function holdfast.purge_idempotency_keys(bigint) is
    'Deletes keys whose time is over, the oldest first, at most p_batch of them. Returns how many.';


select cron.schedule('holdfast_purge_idempotency_keys', '*/10 * * * *', 'select holdfast.purge_idempotency_keys()');
