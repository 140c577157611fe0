-- What: keys of leased routes: claimed for a time, then completed or released by whoever holds the claim.
-- Why: an effect outside the database does not roll back; whoever takes over from one that never finished must know.
-- Who: the connection's own role. The API roles have no rights here.

-- Claims a key of a leased route. Reads first, so that a replay writes nothing.
create or replace function holdfast.lease_idempotency_key(
    p_id bytea,
    p_fingerprint bytea,
    p_route text,
    p_caller_id text,
    p_request_id text,
    p_lease_ms bigint,
    p_ttl_ms bigint,
    out outcome text,
    out effect_id uuid,
    out token bigint,
    out attempt bigint,
    out retry_after_ms bigint,
    out status smallint,
    out headers text,
    out body text
)
returns record
language plpgsql
volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_key holdfast.idempotency_keys;
    v_now timestamptz;
begin
    loop
        v_now := clock_timestamp();

        select k.*
        into v_key
        from holdfast.idempotency_keys k
        where k.id = p_id
            and k.expires_at > v_now;

        if v_key.fingerprint <> p_fingerprint then
            outcome := 'mismatch';
            return;
        elsif v_key.status is not null then
            outcome := 'replay';
            status := v_key.status;
            headers := v_key.headers;
            body := v_key.body;
            return;
        elsif v_key.leased_until > v_now then
            outcome := 'in_progress';
            retry_after_ms := ceil(extract(epoch from v_key.leased_until - v_now) * 1000);
            return;
        end if;

        insert into holdfast.idempotency_keys as k (
            id, fingerprint, expires_at, leased_until, lease_token, effect_id, attempt, route, caller_id, request_id
        )
        values (
            p_id, p_fingerprint, v_now + (p_lease_ms + p_ttl_ms) * interval '1 millisecond',
            v_now + p_lease_ms * interval '1 millisecond', nextval('holdfast.idempotency_lease_tokens'),
            gen_random_uuid(), 1, p_route, p_caller_id, p_request_id
        )
        on conflict (id) do update
        set fingerprint = excluded.fingerprint,
            expires_at = excluded.expires_at,
            created_at = case when k.expires_at <= v_now then excluded.created_at else k.created_at end,
            leased_until = excluded.leased_until,
            lease_token = excluded.lease_token,
            -- A key whose time is over is a new request, with effects of its own.
            effect_id = case when k.expires_at <= v_now then excluded.effect_id else k.effect_id end,
            attempt = case when k.expires_at <= v_now then 1 else k.attempt + 1 end,
            status = null,
            route = excluded.route,
            caller_id = excluded.caller_id,
            request_id = excluded.request_id,
            headers = null,
            body = null
        where k.expires_at <= v_now
            or (k.status is null and k.leased_until <= v_now and k.fingerprint = excluded.fingerprint)
        returning k.effect_id, k.lease_token, k.attempt
        into effect_id, token, attempt;

        if found then
            outcome := 'claimed';
            return;
        end if;
        -- Another claim or its answer came in between: the next look sees it.
    end loop;
end;
$$;

comment on function holdfast.lease_idempotency_key(bytea, bytea, text, text, text, bigint, bigint) is
    'Claims a key of a leased route: claimed (with token, effect and attempt), replay (with the answer), in_progress or '
    'mismatch. A claim whose lease is over may be taken by the next; its attempt is then above 1.';


create or replace function holdfast.complete_idempotency_key(
    p_id bytea,
    p_token bigint,
    p_status smallint,
    p_headers text,
    p_body text,
    p_ttl_ms bigint
)
returns boolean
language sql
volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
    with completed as (
        update holdfast.idempotency_keys k
        set status = p_status,
            headers = p_headers,
            body = p_body,
            expires_at = clock_timestamp() + p_ttl_ms * interval '1 millisecond'
        where k.id = p_id
            and k.lease_token = p_token
            and k.status is null
        returning 1
    )
    select exists (select from completed)
$$;

comment on function holdfast.complete_idempotency_key(bytea, bigint, smallint, text, text, bigint) is
    'Stores the answer of a leased route. False where the claim is not this token''s any more: nothing is stored.';


create or replace function holdfast.require_completed_idempotency_key(
    p_id bytea,
    p_token bigint,
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
    perform holdfast.require_answer_size(p_body, p_max_bytes);
    if not holdfast.complete_idempotency_key(p_id, p_token, p_status, p_headers, p_body, p_ttl_ms) then
        raise exception 'Cannot complete the request: its idempotency key was claimed by another attempt'
            using errcode = 'HF003';
    end if;
end;
$$;

comment on function holdfast.require_completed_idempotency_key(
    bytea, bigint, smallint, text, text, bigint, bigint
) is
    'As complete_idempotency_key, inside the transaction of the handler: raises HF003 where it was false, HF011 where '
    'the body is too large, so that what the handler wrote is rolled back.';


create or replace function holdfast.release_idempotency_key(p_id bytea, p_token bigint)
returns boolean
language sql
volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
    with released as (
        update holdfast.idempotency_keys k
        set leased_until = clock_timestamp()
        where k.id = p_id
            and k.lease_token = p_token
            and k.status is null
        returning 1
    )
    select exists (select from released)
$$;

comment on function holdfast.release_idempotency_key(bytea, bigint) is
    'Ends the lease, with an outcome nobody knows: the next attempt is told so. False where the claim is not this '
    'token''s any more.';
