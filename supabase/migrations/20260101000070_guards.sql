-- What: all that stands in front of a request's work, asked in one statement: limits, idempotency keys, breakers.
-- Why: each of them alone costs a round trip; together they cost one.
-- Who: the connection's own role. The API roles have no rights here.

-- Everybody takes locks in one order: limits by their keys, then idempotency keys by their ids, then breakers by their
-- names. The limits are decided before this is called, as its argument.
create or replace function holdfast.enter_guards(
    p_limits bigint[],
    p_claims jsonb,
    p_reports jsonb,
    out limits bigint[],
    out claims jsonb,
    out statuses jsonb
)
returns record
language plpgsql
volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_claim record;
    v_answer record;
begin
    limits := p_limits;
    claims := '{}';
    for v_claim in
        select *
        from jsonb_to_recordset(p_claims) as c (
            nth int, place int, id text, fingerprint text, route text, caller_id text, request_id text,
            lease_ms bigint, ttl_ms bigint
        )
        order by c.id, c.nth
    loop
        -- Behind the time there is, for each limit, how many of its calls were admitted.
        if v_claim.place is null or p_limits[v_claim.place + 2] > 0 then
            select l.*
            into v_answer
            from holdfast.lease_idempotency_key(
                decode(v_claim.id, 'hex'), decode(v_claim.fingerprint, 'hex'), v_claim.route, v_claim.caller_id,
                v_claim.request_id, v_claim.lease_ms, v_claim.ttl_ms
            ) as l;
            claims := claims || jsonb_build_object(v_claim.nth::text, to_jsonb(v_answer));
        end if;
    end loop;

    if jsonb_array_length(p_reports) > 0 then
        begin
            statuses := holdfast.exchange_circuit_breakers(p_reports);
        exception
            -- A breaker whose row is held, or a report that is none: it is told again later. What was admitted and
            -- claimed stays.
            when lock_not_available or sqlstate 'HF020' then
                statuses := null;
        end;
    end if;
end;
$$;

comment on function holdfast.enter_guards(bigint[], jsonb, jsonb) is
    'Claims the idempotency keys of what limits have admitted (what decide_rate_limits gave; "place" is the place of a '
    'claim''s limit there, from 0, and null where there is none), and exchanges breakers (as exchange_circuit_breakers). '
    'Statuses are null where there was no report, or where the reports could not be taken.';
