-- What: the books of transactions: who ran which, how it ended, and the verdict where the answer to a commit was lost.
-- Why: a transaction whose client died leaves no trace in PostgreSQL, and a lost answer is looked up, never guessed.
-- Who: the connection's own role, beside the caller's work. The API roles have no rights here; service_role reads.

create table holdfast.transactions (
    id uuid primary key,
    status text not null,
    caller_role text not null,
    caller_id text,
    function_name text,
    request_id text,
    isolation text not null,
    attempt bigint not null,
    started_at timestamptz not null,
    deadline_at timestamptz not null,
    ended_at timestamptz,
    operations bigint not null,
    tables text[] not null,
    error_code text,
    constraint status_is_known check (status in ('open', 'committed', 'rolled_back', 'timed_out', 'abandoned')),
    constraint ended_ones_say_when check ((status = 'open') = (ended_at is null)),
    constraint committed_ones_have_no_error check (status <> 'committed' or error_code is null),
    constraint isolation_is_known check (isolation in ('read committed', 'repeatable read', 'serializable')),
    constraint attempts_count_from_one check (attempt >= 1),
    constraint operations_are_not_negative check (operations >= 0)
);

-- What the sweep looks at: as many rows as there are transactions right now.
create index transactions_open on holdfast.transactions (started_at) where status = 'open';

create index transactions_by_start on holdfast.transactions (started_at);

comment on table holdfast.transactions is
    'One row for each transaction of the transaction manager that sent anything. Kept for '
    'holdfast.transaction_retention().';
comment on column holdfast.transactions.id is 'Chosen by the function. A transaction that was tried again has a row for each attempt.';
comment on column holdfast.transactions.status is
    'open; committed; rolled_back and timed_out are final: a commit that arrives later is refused; abandoned: its client '
    'is gone, seen by the sweep.';
comment on column holdfast.transactions.caller_role is 'The role its statements ran as.';
comment on column holdfast.transactions.caller_id is 'The user, where one was signed in.';
comment on column holdfast.transactions.isolation is 'read committed, repeatable read or serializable.';
comment on column holdfast.transactions.attempt is 'Counted from 1; a serialization failure or a deadlock starts the next.';
comment on column holdfast.transactions.deadline_at is 'By the database''s clock. No statement of it runs later.';
comment on column holdfast.transactions.ended_at is 'When it ended; for an abandoned one, when that was noticed.';
comment on column holdfast.transactions.operations is 'Statements the function had sent when it ended.';
comment on column holdfast.transactions.tables is 'Tables it named in execute(), in order of first use.';
comment on column holdfast.transactions.error_code is 'Why it did not commit: a code of the error table, or null.';

alter table holdfast.transactions enable row level security;

create policy "Nobody sees the books through the API"
    on holdfast.transactions
    for all
    to anon, authenticated
    using (false)
    with check (false);

grant select on holdfast.transactions to service_role;


create or replace function holdfast.transaction_retention()
returns interval
language sql
immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select interval '30 days'
$$;

comment on function holdfast.transaction_retention() is 'How long the books of a transaction are kept.';


create or replace function holdfast.transaction_lock_key(p_id uuid)
returns bigint
language sql
immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select hashtextextended('holdfast.transactions ' || p_id::text, 0)
$$;

comment on function holdfast.transaction_lock_key(uuid) is
    'The advisory lock that a transaction holds from its first statement to its end. Whoever can take it knows that '
    'the transaction is over, or has not begun.';


create or replace function holdfast.write_transaction(
    p_id uuid,
    p_facts jsonb,
    p_status text,
    p_operations bigint default 0,
    p_tables text[] default '{}',
    p_error_code text default null
)
returns boolean
language plpgsql
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_now timestamptz := clock_timestamp();
begin
    insert into holdfast.transactions as t (
        id, status, caller_role, caller_id, function_name, request_id, isolation, attempt,
        started_at, deadline_at, ended_at, operations, tables, error_code
    )
    values (
        p_id,
        p_status,
        p_facts ->> 'callerRole',
        left(p_facts ->> 'callerId', 200),
        left(p_facts ->> 'functionName', 200),
        left(p_facts ->> 'requestId', 200),
        p_facts ->> 'isolation',
        (p_facts ->> 'attempt')::bigint,
        v_now,
        v_now + (p_facts ->> 'timeoutMs')::float8 * interval '1 millisecond',
        case when p_status <> 'open' then v_now end,
        p_operations,
        p_tables,
        left(p_error_code, 200)
    )
    on conflict (id) do update
    set
        status = excluded.status,
        ended_at = excluded.ended_at,
        operations = excluded.operations,
        tables = excluded.tables,
        error_code = excluded.error_code
    where t.status in ('open', 'abandoned') and excluded.status <> 'open';

    return found;
end;
$$;

comment on function holdfast.write_transaction(uuid, jsonb, text, bigint, text[], text) is
    'Writes the one row of a transaction, whether it is there already or not. False, and nothing is changed, when it '
    'has ended: only abandoned is no final word, because the sweep may look before the transaction has begun.';


create or replace function holdfast.commit_transaction(
    p_id uuid,
    p_facts jsonb,
    p_operations bigint,
    p_tables text[]
)
returns void
language plpgsql
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    if not holdfast.write_transaction(p_id, p_facts, 'committed', p_operations, p_tables) then
        raise exception 'Cannot commit transaction %: its books were closed before', p_id
            using
                errcode = 'HF001',
                hint = 'Its outcome was asked for while this commit was on its way, and the answer was: rolled back.';
    end if;
end;
$$;

comment on function holdfast.commit_transaction(uuid, jsonb, bigint, text[]) is
    'The last statement of a transaction: its row says committed exactly when it commits. Raises HF001 when the books '
    'were closed by somebody who has told its client that it rolled back.';


create or replace function holdfast.transaction_status_of(p_xid text)
returns text
language plpgsql
stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    return pg_catalog.pg_xact_status(p_xid::pg_catalog.xid8);
exception
    -- A server that never gave this id out: one that took over and lost the end of the log.
    when invalid_parameter_value then
        return null;
end;
$$;

comment on function holdfast.transaction_status_of(text) is
    'pg_xact_status: committed, aborted, in progress, or null where the server does not know (any more).';


create or replace function holdfast.resolve_transaction(
    p_id uuid,
    p_facts jsonb,
    p_xid text,
    p_end_holder boolean
)
returns text
language plpgsql
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_key bigint := holdfast.transaction_lock_key(p_id);
    v_seen text;
    v_committed boolean;
begin
    if not pg_try_advisory_xact_lock(v_key) then
        perform pg_terminate_backend(a.pid)
        from pg_catalog.pg_locks as l
        join pg_catalog.pg_stat_activity as a on a.pid = l.pid and a.datname = current_database()
        where p_end_holder
            and l.locktype = 'advisory'
            and l.objsubid = 1
            and l.granted
            and ((l.classid::bigint << 32) | l.objid::bigint) = v_key
            and a.state like 'idle in transaction%';

        return 'in_progress';
    end if;

    -- It is over, or it has not begun and waits for this lock.
    v_seen := holdfast.transaction_status_of(p_xid);

    if p_facts is null then
        return case v_seen when 'committed' then 'committed' when 'aborted' then 'rolled_back' else 'unknown' end;
    end if;

    select t.status = 'committed' into v_committed
    from holdfast.transactions as t
    where t.id = p_id;

    if v_committed then
        return case when v_seen = 'aborted' then 'unknown' else 'committed' end;
    end if;

    if v_seen = 'committed' then
        return 'unknown';
    end if;

    perform holdfast.write_transaction(p_id, p_facts, 'rolled_back', p_error_code => 'SERVICE_UNAVAILABLE');

    return 'rolled_back';
end;
$$;

comment on function holdfast.resolve_transaction(uuid, jsonb, text, boolean) is
    'What became of a transaction whose commit was not answered: committed, rolled_back, in_progress, or unknown where '
    'the books and the server''s own record (p_xid) disagree. rolled_back binds: a commit still on its way is refused. '
    'Without p_facts no books were kept, and p_xid alone tells. p_end_holder ends its session if that only waits.';


create or replace function holdfast.sweep_transactions()
returns bigint
language plpgsql
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_id uuid;
    v_count bigint := 0;
begin
    for v_id in
        select t.id
        from holdfast.transactions as t
        where t.status = 'open'
        order by t.started_at
        limit 1000
        for update skip locked
    loop
        if pg_try_advisory_xact_lock(holdfast.transaction_lock_key(v_id)) then
            update holdfast.transactions as t
            set status = 'abandoned', ended_at = clock_timestamp()
            where t.id = v_id;

            v_count := v_count + 1;
        end if;
    end loop;

    return v_count;
end;
$$;

comment on function holdfast.sweep_transactions() is
    'Closes the books of transactions whose client is gone; the server has rolled them back by itself. Those that live '
    'hold their lock and are left alone. Returns how many it closed.';


create or replace function holdfast.purge_transactions(p_batch bigint default 20000)
returns bigint
language plpgsql
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_count bigint;
begin
    with old as (
        select t.id
        from holdfast.transactions as t
        where t.started_at < now() - holdfast.transaction_retention() and t.status <> 'open'
        order by t.started_at
        limit p_batch
        for update skip locked
    )
    delete from holdfast.transactions as t
    using old
    where t.id = old.id;

    get diagnostics v_count = row_count;

    return v_count;
end;
$$;

comment on function holdfast.purge_transactions(bigint) is
    'Deletes books older than holdfast.transaction_retention(), at most p_batch of them. Returns how many.';


select cron.schedule('holdfast_sweep_transactions', '* * * * *', 'select holdfast.sweep_transactions()');

select cron.schedule('holdfast_purge_transactions', '*/5 * * * *', 'select holdfast.purge_transactions()');
