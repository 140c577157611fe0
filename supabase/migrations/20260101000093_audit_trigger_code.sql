-- What: the code of the triggers, generated for each table: what a change is in JSON, and the statement that records it.
-- Why: one statement for all rows of a write, with everything decided beforehand, is what keeps the trail affordable.
-- Who: audit.enable() and audit.refresh() have it written; the triggers run for whoever writes, and never make a write fail.

-- The JSON of a whole row. to_jsonb also has columns that were added since; a row with masked or json columns is
-- put together column by column.
create or replace function audit.row_code(p_options audit.tables, p_row text)
returns text
language sql
stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select case
        when bool_or(c.is_masked and not c.is_left_out)
            or exists (
                select from pg_catalog.pg_attribute as a
                where a.attrelid = p_options.table_oid and a.attnum > 0 and not a.attisdropped
                and audit.holds_json(a.atttypid)
            )
        then format(
            '(''{'' || %s || ''}'')::jsonb',
            audit.join_code(array_agg(
                format('%L || %s', c.json_key || ':', case p_row when 'o' then c.old_json else c.new_json end)
                order by c.position
            ) filter (where not c.is_left_out))
        )
        when bool_or(c.is_left_out)
        then format('(to_jsonb(%s.*) - %L::text[])', p_row, array_agg(c.name) filter (where c.is_left_out))
        else format('to_jsonb(%s.*)', p_row)
    end
    from audit.column_code(p_options) as c
$$;

comment on function audit.row_code(audit.tables, text) is
    'SQL that shows a whole row as JSON, without what is left out and with what is masked.';


create or replace function audit.with_oddities(p_code text)
returns text
language sql
immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select format('case when v_oddities is null then %1$s else %1$s || v_oddities end', p_code)
$$;

comment on function audit.with_oddities(text) is 'SQL that sets what was odd about the request beside the rows.';


create or replace function audit.nth_name(p_table oid)
returns text
language sql
stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select '#' || min(n)
    from generate_series(1, 1601) as n
    where not exists (
        select from pg_catalog.pg_attribute as a where a.attrelid = p_table and a.attname = '#' || n
    )
$$;

comment on function audit.nth_name(oid) is 'What the number of a row is called while rows are paired: no column has this name.';


-- What stands in details for each operation. v_oddities, what was odd about the request, is nearly always null.
create or replace function audit.details_code(p_options audit.tables, p_operation text)
returns text
language sql
stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select case
        when p_operation = 'TRUNCATE' and p_options.recorded_as <> p_options.table_oid then format(
            'jsonb_build_object(''truncated'', %L) || coalesce(v_oddities, ''{}'')', audit.identity_of(p_options.table_oid)
        )
        when p_operation = 'TRUNCATE' then 'coalesce(v_oddities, ''{}'')'
        when p_operation = 'INSERT' then audit.with_oddities(
            format('jsonb_build_object(''row'', jsonb_build_object(''new'', %s))', audit.row_code(p_options, 'n'))
        )
        when p_operation = 'DELETE' then audit.with_oddities(
            format('jsonb_build_object(''row'', jsonb_build_object(''old'', %s))', audit.row_code(p_options, 'o'))
        )
        -- Without a key only the whole row says which one it was.
        when p_options.whole_row or cardinality(audit.key_columns(p_options.table_oid)) = 0 then audit.with_oddities(format(
            'jsonb_build_object(''row'', jsonb_build_object(''old'', %s - %L, ''new'', %s - %L))',
            audit.row_code(p_options, 'o'), audit.nth_name(p_options.table_oid),
            audit.row_code(p_options, 'n'), audit.nth_name(p_options.table_oid)
        ))
        -- Text first, jsonb once: only what changed is turned into JSON at all.
        else format(
            '(''{"row":{"old":{'' || %s || ''},"new":{'' || %s || ''}}'' || '
            'case when v_oddities is null then ''}'' else '','' || ltrim(v_oddities::text, ''{'') end)::jsonb',
            audit.join_code(array_agg(
                format('case when %s then %L || %s end', c.changed, c.json_key || ':', c.old_json)
                order by c.position
            ) filter (where not c.is_left_out)),
            audit.join_code(array_agg(
                case when c.is_key then format('%L || %s', c.json_key || ':', c.new_json)
                else format('case when %s then %L || %s end', c.changed, c.json_key || ':', c.new_json)
                end
                order by c.position
            ) filter (where not c.is_left_out))
        )
    end
    from audit.column_code(p_options) as c
$$;

comment on function audit.details_code(audit.tables, text) is 'SQL of database_changes.details for an operation on a table.';


-- An UPDATE that changed nothing but what is left out leaves no row.
create or replace function audit.worth_recording(p_options audit.tables)
returns text
language sql
stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select case when bool_or(c.is_left_out) then format(
            E'\nand (%s or not (%s))',
            coalesce(string_agg(c.changed, ' or ') filter (where not c.is_left_out), 'false'),
            string_agg(c.changed, ' or ') filter (where c.is_left_out)
        ) else '' end
    from audit.column_code(p_options) as c
$$;

comment on function audit.worth_recording(audit.tables) is 'SQL that is false for an UPDATE of left-out columns only.';


-- The entry of x-forwarded-for that the outermost trusted proxy wrote; without headers the address of the connection.
create or replace function audit.address_code(p_hops integer)
returns text
language sql
immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select case p_hops
        when 0 then 'null::inet'
        else format(
            'case when v_headers is null then inet_client_addr() '
            'else ltrim(split_part(v_headers ->> ''x-forwarded-for'', '','', %s))::inet end',
            case when p_hops = 1 then '-1' else format(
                'case when v_headers ->> ''x-forwarded-for'' like ''%%,%%'' then -%s else 1 end', p_hops
            ) end
        )
    end
$$;

comment on function audit.address_code(integer) is 'SQL of database_changes.ip, with so many trusted proxies.';


-- The one statement that writes to the trail. p_from gives the rows as n (new) and o (old).
create or replace function audit.insert_code(p_options audit.tables, p_operation text, p_from text, p_where text default 'true')
returns text
language sql
stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select format(
        $code$
                insert into audit.database_changes (
                    occurred_at, transaction_id, actor_id, actor_role, ip, user_agent, request_id, function_name,
                    schema_name, table_name, object_identity, operation, primary_key, details
                )
                select
                    clock_timestamp(),
                    txid_current(),
                    (v_claims ->> 'sub')::uuid,
                    coalesce(nullif(current_setting('role', true), 'none'), session_user),
                    %s,
                    left(v_headers ->> 'user-agent', 512),
                    left(coalesce(v_headers ->> 'x-request-id', v_headers ->> 'sb-request-id'), 200),
                    left(v_headers ->> 'x-function-name', 100),
                    %L, %L, %L, tg_op,
                    %s,
                    %s
                from %s
                where %s;$code$,
        audit.address_code((select s.trusted_proxy_hops from audit.settings as s)),
        n.nspname, c.relname, audit.identity_of(c.oid),
        case p_operation
            when 'TRUNCATE' then 'null'
            when 'DELETE' then audit.key_code(p_options.table_oid, 'o')
            else audit.key_code(p_options.table_oid, 'n')
        end,
        audit.details_code(p_options, p_operation),
        p_from,
        p_where
    )
    from pg_catalog.pg_class as c
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    where c.oid = p_options.recorded_as
$$;

comment on function audit.insert_code(audit.tables, text, text, text) is 'The statement that records the rows of a FROM clause.';


-- The body of audit.record_<id>(). Twice at most: should the first way fail over what the request says of itself, the
-- second takes only what is sound. What fails then is counted as a gap.
create or replace function audit.trigger_code(p_options audit.tables)
returns text
language sql
stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select format(
        $code$
#variable_conflict use_variable
declare
    v_claims jsonb;
    v_headers jsonb;
    v_oddities jsonb;
begin
    for v_way in 1 .. 2 loop
        begin
            if v_way = 1 then
                v_claims := nullif(current_setting('request.jwt.claims', true), '')::jsonb;
                v_headers := nullif(current_setting('request.headers', true), '')::jsonb;
            else
                select r.claims, r.headers, r.oddities
                into v_claims, v_headers, v_oddities
                from audit.readable_request() as r;
            end if;
            if tg_op = 'INSERT' then%s
            elsif tg_op = 'UPDATE' then
                -- One row, as most updates have, needs no pairing.%s
                if not found and exists (select from old_rows) then
                    if (select count(*) from new_rows) <> (select count(*) from old_rows) then
                        raise exception 'rows were kept from moving to another partition';
                    end if;
                    if exists (select from new_rows offset 1) then%s
                    end if;
                end if;
            elsif tg_op = 'DELETE' then%s
            else%s
            end if;
            return null;
        exception
            -- Whoever can try the whole transaction again must hear of it.
            when serialization_failure or deadlock_detected then
                raise;
            when assert_failure or others then
                if v_way = 2 then
                    begin
                        perform audit.count_gap(%L, tg_op, sqlstate, sqlerrm);
                    exception
                        when serialization_failure or deadlock_detected then raise;
                        -- The trail is broken beyond counting: the log is all that is left.
                        when assert_failure or others then
                            raise warning 'The audit trail could not even count a gap: %%', sqlerrm;
                    end;
                end if;
        end;
    end loop;
    return null;
end;
$code$,
        audit.insert_code(p_options, 'INSERT', 'new_rows as n'),
        audit.insert_code(
            p_options, 'UPDATE', 'new_rows as n cross join old_rows as o',
            'not exists (select from new_rows offset 1) and not exists (select from old_rows offset 1)' || audit.worth_recording(p_options)
        ),
        -- Both tables hold their rows in the order in which they were changed.
        audit.insert_code(
            p_options, 'UPDATE',
            format(
                '(select row_number() over () as %1$I, n.* from new_rows as n) as n '
                'join (select row_number() over () as %1$I, o.* from old_rows as o) as o on o.%1$I = n.%1$I',
                audit.nth_name(p_options.table_oid)
            ),
            'true' || audit.worth_recording(p_options)
        ),
        audit.insert_code(p_options, 'DELETE', 'old_rows as o'),
        audit.insert_code(p_options, 'TRUNCATE', '(values (1)) as once'),
        audit.identity_of(p_options.recorded_as)
    )
$$;

comment on function audit.trigger_code(audit.tables) is 'The body of the trigger function of a table.';
