-- What: the trail of the schema itself, of sign-ins and of stored files, and the watch over it all.
-- Why: whoever can change a table can change what it means; and a trail that stopped must be noticed within a minute.
-- Who: event triggers run for whoever changes the schema, triggers for the platform's own services. None can make them fail.

create or replace function audit.statement()
returns text
language sql
volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select case
        when not audit.sounds_secret(current_query())
            -- A connection string holds a password; what writes rows beside the DDL holds their values, masked ones too.
            and current_query() !~* '://[^/\s]*:[^/\s]*@'
            and regexp_replace(current_query(), '--[^\n]*|/\*.*?\*/|(\$\w*\$).*?\1', '', 'g')
                !~* '(^|;)\s*(insert|update|delete|merge|copy|with|select|values|call|execute|do)\M'
            then left(current_query(), 4000)
    end
$$;

comment on function audit.statement() is
    'What the client sent, at most 4,000 characters. Null where it speaks of a secret, or holds more than DDL: values of '
    'rows may stand in it.';


create or replace function audit.record_ddl()
returns event_trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    begin
        insert into audit.database_changes (
            occurred_at, transaction_id, actor_id, actor_role, ip, user_agent, request_id, function_name,
            schema_name, table_name, object_identity, operation, details
        )
        select
            clock_timestamp(), txid_current(),
            w.actor_id, w.actor_role, w.ip, w.user_agent, w.request_id, w.function_name,
            coalesce(command.schema_name, ''), coalesce(c.relname, command.object_identity, ''),
            coalesce(command.object_identity, ''), 'DDL',
            jsonb_build_object('ddl', jsonb_build_object(
                'command', command.command_tag,
                'object_type', command.object_type,
                'object', command.object_identity,
                'statement', audit.statement()
            )) || coalesce(w.extra, '{}')
        from pg_catalog.pg_event_trigger_ddl_commands() as command
        cross join audit.writer() as w
        left join pg_catalog.pg_class as c
            on command.classid = 'pg_catalog.pg_class'::regclass and c.oid = command.objid
        where not command.in_extension
        and coalesce(command.schema_name, '') not like 'pg\_temp%'
        and not audit.is_generated(command.object_identity);

        -- The name of a schema is part of the names of all its tables; a table concerns itself and its partitions.
        if tg_tag = 'ALTER SCHEMA' then
            perform audit.refresh();
        elsif tg_tag in ('ALTER TABLE', 'CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'CREATE SCHEMA') then
            perform audit.refresh(array(
                select command.objid
                from pg_catalog.pg_event_trigger_ddl_commands() as command
                where command.classid = 'pg_catalog.pg_class'::regclass
            ));
        end if;
    exception
        when serialization_failure or deadlock_detected then raise;
        when assert_failure or others then
            begin
                perform audit.count_gap(tg_tag, 'DDL', sqlstate, sqlerrm);
            exception
                when serialization_failure or deadlock_detected then raise;
                -- The trail is broken beyond counting: the log is all that is left.
                when assert_failure or others then
                    raise warning 'The audit trail could not even count a gap: %', sqlerrm;
            end;
    end;
end;
$$;

comment on function audit.record_ddl() is
    'Event trigger: records each DDL command, and has the code of changed and new tables generated. Never makes the command fail.';


create or replace function audit.record_drop()
returns event_trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    begin
        insert into audit.database_changes (
            occurred_at, transaction_id, actor_id, actor_role, ip, user_agent, request_id, function_name,
            schema_name, table_name, object_identity, operation, details
        )
        select
            clock_timestamp(), txid_current(),
            w.actor_id, w.actor_role, w.ip, w.user_agent, w.request_id, w.function_name,
            coalesce(dropped.schema_name, ''), coalesce(dropped.object_name, dropped.object_identity),
            dropped.object_identity, 'DDL',
            jsonb_build_object('ddl', jsonb_build_object(
                'command', tg_tag,
                'object_type', dropped.object_type,
                'object', dropped.object_identity,
                'statement', audit.statement()
            )) || coalesce(w.extra, '{}')
        from pg_catalog.pg_event_trigger_dropped_objects() as dropped
        cross join audit.writer() as w
        -- What an ALTER TABLE drops besides is told by its own row.
        where (dropped.original or dropped.object_type = 'table')
        and not dropped.is_temporary
        and not audit.is_generated(dropped.object_identity);

        -- A table that is gone leaves the registry, and one whose triggers were dropped gets them back.
        perform audit.refresh(array(
            select to_regclass(format('%I.%I', dropped.address_names[1], dropped.address_names[2]))::oid
            from pg_catalog.pg_event_trigger_dropped_objects() as dropped
            where dropped.object_type = 'trigger'
        ));
    exception
        when serialization_failure or deadlock_detected then raise;
        when assert_failure or others then
            begin
                perform audit.count_gap(tg_tag, 'DDL', sqlstate, sqlerrm);
            exception
                when serialization_failure or deadlock_detected then raise;
                -- The trail is broken beyond counting: the log is all that is left.
                when assert_failure or others then
                    raise warning 'The audit trail could not even count a gap: %', sqlerrm;
            end;
    end;
end;
$$;

comment on function audit.record_drop() is 'Event trigger: records what a command dropped. Never makes the command fail.';


create or replace function audit.is_generated(p_object text)
returns boolean
language sql
immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(p_object ~ '^(audit\.record_\d+\(\)$|audit_(insert|update|delete|truncate) on )', false)
$$;

comment on function audit.is_generated(text) is 'Whether an object is trigger code of the trail, whose changes tell nobody anything.';

drop event trigger if exists audit_ddl;

create event trigger audit_ddl
    on ddl_command_end
    execute function audit.record_ddl();

drop event trigger if exists audit_drop;

create event trigger audit_drop
    on sql_drop
    execute function audit.record_drop();


create or replace function audit.record_session()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    -- Through jsonb, since the platform's columns come and go.
    v_session jsonb;
begin
    begin
        v_session := to_jsonb(case tg_op when 'INSERT' then new else old end);
        insert into audit.database_changes (
            occurred_at, transaction_id, actor_id, actor_role, ip, user_agent, request_id, function_name,
            schema_name, table_name, object_identity, operation, primary_key, details
        )
        select
            clock_timestamp(), txid_current(),
            (v_session ->> 'user_id')::uuid, w.actor_role,
            coalesce(audit.readable_ip(v_session ->> 'ip'), w.ip),
            left(coalesce(v_session ->> 'user_agent', w.user_agent), 512), w.request_id, w.function_name,
            tg_table_schema, tg_table_name, format('%I.%I', tg_table_schema, tg_table_name), 'EVENT', v_session ->> 'id',
            jsonb_build_object('event', jsonb_build_object(
                'action', case tg_op when 'INSERT' then 'auth.signed_in' else 'auth.signed_out' end,
                'resource_type', 'session',
                'resource_id', v_session ->> 'id'
            ))
        from audit.writer() as w;
    exception
        when serialization_failure or deadlock_detected then raise;
        when assert_failure or others then
            begin
                perform audit.count_gap('auth.sessions', 'EVENT', sqlstate, sqlerrm);
            exception
                when serialization_failure or deadlock_detected then raise;
                -- The trail is broken beyond counting: the log is all that is left.
                when assert_failure or others then
                    raise warning 'The audit trail could not even count a gap: %', sqlerrm;
            end;
    end;
    return null;
end;
$$;

comment on function audit.record_session() is
    'Trigger on auth.sessions: an event for each sign-in and each sign-out. Never makes either fail.';


-- The platform owns these tables and says who may have triggers on them. What it refuses is not recorded.
create or replace function audit.enable_platform()
returns text[]
language plpgsql
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_table record;
    v_enabled text[] := array[]::text[];
begin
    for v_table in
        select to_regclass(p.name) as id, p.name, array(
            select a.attname::text
            from pg_catalog.pg_attribute as a
            where a.attrelid = to_regclass(p.name) and a.attname = any (p.leave_out)
        ) as leave_out
        from (values
            ('auth.sessions', '{}'::text[]),
            -- Each sign-in, each look at a file writes these; sign-ins are told by auth.sessions.
            ('auth.users', '{last_sign_in_at, updated_at}'),
            ('storage.objects', '{last_accessed_at, updated_at}')
        ) as p (name, leave_out)
        where to_regclass(p.name) is not null
    loop
        begin
            if v_table.name = 'auth.sessions' then
                create or replace trigger audit_session after insert or delete on auth.sessions
                    for each row execute function audit.record_session();
            else
                perform audit.enable(v_table.id, v_table.leave_out);
            end if;
            v_enabled := array_append(v_enabled, v_table.name);
        exception
            when insufficient_privilege then
                raise notice 'The platform allows no triggers on %, so it is not recorded: %', v_table.name, sqlerrm;
        end;
    end loop;
    return v_enabled;
end;
$$;

comment on function audit.enable_platform() is
    'Records sign-ins, accounts and stored files, as far as the platform has the tables and allows triggers on them. '
    'Callable any number of times. Returns the tables it enabled.';

select audit.enable_platform();


create or replace function audit.watch()
returns bigint
language plpgsql
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_open bigint;
    v_last text;
begin
    perform audit.refresh();

    select count(*), (array_agg(format('%s of %s: %s', g.operation, g.object_identity, g.message) order by g.id desc))[1]
    into v_open, v_last
    from audit.gaps as g
    where g.seen_at is null;

    if v_open > 0 then
        raise warning 'The audit trail has % open gaps, the last: %', v_open, v_last
            using hint = 'Look at audit.gaps, then select audit.see_gaps(''what was found'').';
        perform pg_notify('holdfast_alerts', jsonb_build_object(
            'alert', 'audit_gaps', 'open', v_open, 'last', left(v_last, 500)
        )::text);
    end if;
    return v_open;
end;
$$;

comment on function audit.watch() is
    'Sees to stale trigger code, and raises an alert while there are open gaps: a warning in the server''s log and a '
    'notification on holdfast_alerts. Returns how many there are.';

select cron.schedule('holdfast_audit_watch', '* * * * *', 'select audit.watch()');

-- Holdfast's own tables that hold what users sent. Answers kept for idempotency keys are left out, for they repeat what
-- the application's tables say. Counters and caches come and go, and transactions are a log themselves. Their lease
-- tokens are numbers, no secrets.
select audit.enable('holdfast.compensations', p_mask => '{}');

select audit.enable(
    'holdfast.idempotency_keys',
    p_leave_out => '{headers, body, leased_until, lease_token}',
    p_mask => '{}'
);
