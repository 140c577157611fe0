/** Takes notes, with and without an idempotency key: the same work, so that the difference is what the key costs. */
import { z } from 'zod'
import { db, sql, type SqlQuery, type Tx } from '../../../../../../supabase/functions/_shared/db/client.ts'
import { defineApi, route } from '../../../../../../supabase/functions/_shared/http/api.ts'

const body = z.strictObject({ body: z.string().min(1).max(1_000) })
const response = z.object({ id: z.number(), body: z.string() })

type Note = z.infer<typeof response>

const insert = (body: string): SqlQuery =>
  sql`insert into public.notes (body) values (${body}) returning jsonb_build_object('id', id, 'body', body) as note`

/** The second statement waits for the first. */
async function takeTwice(tx: Tx, body: string): Promise<Note> {
  const [first] = await tx.query<{ note: Note }>(insert(body))
  const [second] = await tx.query<{ note: Note }>(insert(`${first!.note.id}: ${body}`))
  return second!.note
}

export default defineApi({
  name: 'notes',
  title: 'Notes',
  routes: [
    route({
      method: 'POST',
      path: '/one/unprotected',
      auth: 'user',
      summary: 'One statement',
      body,
      response,
      status: 201,
      async handler(context) {
        const [row] = await db().as(context).query<{ note: Note }>(insert(context.body.body))
        return { data: row!.note }
      },
    }),

    route({
      method: 'POST',
      path: '/one/protected',
      auth: 'user',
      summary: 'One statement, once for each key',
      body,
      response,
      status: 201,
      idempotency: 'atomic',
      async handler(context) {
        const [row] = await context.tx.query<{ note: Note }>(insert(context.body.body))
        return { data: row!.note }
      },
    }),

    route({
      method: 'POST',
      path: '/one/deferred',
      auth: 'user',
      summary: 'One statement that travels with the commit, once for each key',
      body,
      response,
      status: 201,
      idempotency: 'atomic',
      handler: (context) => ({ data: insert(context.body.body) }),
    }),

    route({
      method: 'POST',
      path: '/two/unprotected',
      auth: 'user',
      summary: 'Two dependent statements',
      body,
      response,
      status: 201,
      handler: async (context) => ({
        data: await db().as(context).transaction((tx) => takeTwice(tx, context.body.body)),
      }),
    }),

    route({
      method: 'POST',
      path: '/two/protected',
      auth: 'user',
      summary: 'Two dependent statements, once for each key',
      body,
      response,
      status: 201,
      idempotency: 'atomic',
      handler: async (context) => ({ data: await takeTwice(context.tx, context.body.body) }),
    }),
  ],
})
