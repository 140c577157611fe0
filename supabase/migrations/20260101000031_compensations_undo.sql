-- What: undoing the effects whose transaction has not committed: who may, how often, and who is told to.
-- Why: the isolate that should have done it may be dead; a schedule finds what is due and rings its function.
-- Who: the connection's own role and pg_cron. retry_compensation() is for admins. The API roles have no rights here.

create or replace function holdfast.compensation_max_attempts()
returns bigint
language sql
immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select 20::bigint
$$;

comment on function holdfast.compensation_max_attempts() is 'How often undoing an effect is begun before it is discarded.';


create or replace function holdfast.compensation_backoff(p_attempts bigint)
returns interval
language sql
immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select least(interval '30 seconds' * power(2, least(p_attempts, 20) - 1), interval '1 hour')
$$;

comment on function holdfast.compensation_backoff(bigint) is
    'The wait after so many attempts: 30 s, 60 s, 120 s and so on, one hour at most. All of them take 14 hours.';


create or replace function holdfast.compensation_retention()
returns interval
language sql
immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select interval '30 days'
$$;

comment on function holdfast.compensation_retention() is 'How long the record of an effect is kept that is undone, or settled and was taken over.';


create or replace function holdfast.claim_compensation(
    p_function_name text,
    p_names text[],
    p_lease_ms bigint,
    p_transaction_id uuid default null,
    p_defer_resumable boolean default false
)
returns setof holdfast.compensations
language plpgsql
volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_now timestamptz := clock_timestamp();
    v_id uuid;
    v_owner uuid;
    v_verdict text;
    v_passed uuid[] := array[]::uuid[];
begin
    loop
        if p_transaction_id is not null then
            select c.id, c.transaction_id into v_id, v_owner
            from holdfast.compensations as c
            where c.transaction_id = p_transaction_id
                and c.function_name = p_function_name
                and c.name = any (p_names)
                and c.status = 'pending'
                and not (p_defer_resumable and c.resume_key is not null)
                and c.id <> all (v_passed)
            order by c.position desc
            limit 1
            for update skip locked;
        else
            select c.id, c.transaction_id into v_id, v_owner
            from holdfast.compensations as c
            where c.status in ('pending', 'running', 'retryable')
                and c.due_at <= v_now
                and c.function_name = p_function_name
                and c.name = any (p_names)
                and c.id <> all (v_passed)
                -- Last recorded, first undone: not while a later one is being undone, or is about to be.
                and not exists (
                    select
                    from holdfast.compensations as later
                    where later.transaction_id = c.transaction_id
                        and later.position > c.position
                        and (
                            (later.status in ('pending', 'running') and later.due_at > v_now)
                            or (later.status = 'pending' and later.name = any (p_names))
                        )
                )
            order by c.due_at
            limit 1
            for update skip locked;
        end if;

        exit when not found;

        v_verdict := holdfast.bar_transaction(v_owner);

        if v_verdict = 'barred' then
            return query
            update holdfast.compensations as c
            set status = case
                    when c.attempts < holdfast.compensation_max_attempts() then 'running'
                    else 'discarded'
                end,
                ended_at = case when c.attempts >= holdfast.compensation_max_attempts() then clock_timestamp() end,
                attempts = least(c.attempts + 1, holdfast.compensation_max_attempts()),
                lease_token = c.lease_token + 1,
                due_at = clock_timestamp() + p_lease_ms * interval '1 millisecond'
            where c.id = v_id
            returning c.*;

            return;
        end if;

        if v_verdict = 'committed' then
            update holdfast.compensations as c
            set status = 'settled', ended_at = clock_timestamp()
            where c.id = v_id;
        end if;

        v_passed := v_passed || v_id;
    end loop;
end;
$$;

comment on function holdfast.claim_compensation(text, text[], bigint, uuid, boolean) is
    'Leases the next effect of a function to be undone, if there is one, among those with a handler (p_names): of the '
    'transaction p_transaction_id, or of those that are due. One that has had all its attempts is discarded instead, and '
    'returned as that. Waits for nobody: what a commit or another claim holds is passed over.';


create or replace function holdfast.finish_compensation(
    p_id uuid,
    p_lease_token bigint,
    p_error text default null,
    p_counts boolean default true
)
returns text
language sql
volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
    update holdfast.compensations as c
    set status = case
            when p_error is null then 'undone'
            when c.attempts < holdfast.compensation_max_attempts() or not p_counts then 'retryable'
            else 'discarded'
        end,
        ended_at = case
            when p_error is null or (c.attempts >= holdfast.compensation_max_attempts() and p_counts)
                then clock_timestamp()
        end,
        attempts = c.attempts - case when p_counts then 0 else 1 end,
        due_at = clock_timestamp() + holdfast.compensation_backoff(c.attempts),
        last_error = left(p_error, 2000)
    where c.id = p_id
        and c.lease_token = p_lease_token
        and c.status = 'running'
    returning c.status
$$;

comment on function holdfast.finish_compensation(uuid, bigint, text, boolean) is
    'How an attempt ended: undone, or with an error retryable or discarded; not p_counts: the outside service was not asked, '
    'and the attempt is not one. Null, and nothing is changed, when the lease has gone to somebody else.';


create or replace function holdfast.retry_compensation(p_id uuid)
returns boolean
language sql
volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
    with retried as (
        update holdfast.compensations as c
        set status = 'retryable', attempts = 0, due_at = clock_timestamp(), ended_at = null
        where c.id = p_id
            and c.status in ('retryable', 'discarded')
        returning 1
    )
    select exists (select from retried)
$$;

comment on function holdfast.retry_compensation(uuid) is
    'For admins: an effect that was discarded, or waits for its next attempt, is tried again at the next sweep, with all '
    'its attempts. False where there is no such one.';


create or replace function holdfast.ring_compensations()
returns bigint
language plpgsql
volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_url text;
    v_key text;
    v_function_name text;
    v_rung bigint := 0;
begin
    -- Settled by transactions that could not see them (see bar_transaction).
    with settled as (
        select c.id
        from holdfast.compensations as c
        join holdfast.transactions as t on t.id = c.transaction_id
        where c.status = 'pending'
            and c.due_at <= clock_timestamp()
            and t.status = 'committed'
            and t.isolation <> 'read committed'
        limit 10000
        for update of c skip locked
    )
    update holdfast.compensations as c
    set status = 'settled', ended_at = clock_timestamp()
    from settled
    where c.id = settled.id;

    for v_function_name in
        select distinct c.function_name
        from holdfast.compensations as c
        where c.status in ('pending', 'running', 'retryable') and c.due_at <= clock_timestamp()
    loop
        if v_url is null then
            select
                max(s.decrypted_secret) filter (where s.name = 'holdfast_url'),
                max(s.decrypted_secret) filter (where s.name = 'holdfast_secret_key')
            into v_url, v_key
            from vault.decrypted_secrets as s
            where s.name in ('holdfast_url', 'holdfast_secret_key');

            if v_url is null or v_key is null then
                raise warning 'Cannot undo what is due: the Vault has no secrets holdfast_url and holdfast_secret_key';
                exit;
            end if;
        end if;

        perform net.http_post(
            url := rtrim(v_url, '/') || '/functions/v1/' || v_function_name || '/compensations',
            headers := jsonb_build_object('Content-Type', 'application/json', 'apikey', v_key),
            timeout_milliseconds := 90000
        );

        v_rung := v_rung + 1;
    end loop;

    return v_rung;
-- Vault or pg_net is not installed.
exception when invalid_schema_name or undefined_table or undefined_function or insufficient_privilege then
    raise warning 'Cannot undo what is due: %', sqlerrm;

    return 0;
end;
$$;

comment on function holdfast.ring_compensations() is
    'Calls POST /compensations of each function that has something due, once. The call is a doorbell: if it is lost, '
    'the next one comes in a minute. Without the Vault''s secrets it warns, and all stays due. Returns how many it called.';


create or replace function holdfast.purge_compensations(p_batch bigint default 20000)
returns bigint
language plpgsql
volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_count bigint;
begin
    with old as (
        select c.id
        from holdfast.compensations as c
        where c.status in ('undone', 'settled') and c.ended_at < now() - holdfast.compensation_retention()
        order by c.ended_at
        limit p_batch
        for update skip locked
    )
    delete from holdfast.compensations as c
    using old
    where c.id = old.id;

    get diagnostics v_count = row_count;

    return v_count;
end;
$$;

comment on function holdfast.purge_compensations(bigint) is
    'Deletes records of effects that ended longer ago than holdfast.compensation_retention(), at most p_batch of them. '
    'Returns how many. Discarded ones stay.';


select cron.schedule('holdfast_ring_compensations', '* * * * *', 'select holdfast.ring_compensations()');

select cron.schedule('holdfast_purge_compensations', '*/10 * * * *', 'select holdfast.purge_compensations()');
