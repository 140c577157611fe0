/** The door the sweep rings at: the database calls it when effects of this function are due to be undone. */
import { z } from 'zod'
import type { UndoReport } from '../db/compensations.ts'
import { type Route, route } from './route.ts'

const undoAnswer = z.object({
  undone: z.number().int(),
  failed: z.number().int(),
})

/**
 * `POST /compensations`, for holders of a secret key. Every function whose transactions compensate has this route;
 * without it, what crashed transactions left is never undone. Safe to call at any time, and twice at once.
 */
export function undoRoute(manager: { undoDue(): Promise<UndoReport[]> }): Route {
  return route({
    method: 'POST',
    path: '/compensations',
    auth: 'secret',
    summary: 'Undo what crashed transactions have left',
    description: 'Called by the database every minute while something is due.',
    response: undoAnswer,
    errors: ['SERVICE_UNAVAILABLE'],
    timeoutMs: 90_000,
    async handler({ log }) {
      const reports = await manager.undoDue()
      for (const { name, effectKey, outcome, error } of reports) {
        const fields = { compensation: name, effectKey, error }
        if (outcome === 'undone') log.info('An effect was undone', fields)
        else log.error('An effect could not be undone', fields)
      }
      const undone = reports.filter(({ outcome }) => outcome === 'undone').length
      return { data: { undone, failed: reports.length - undone } }
    },
  })
}
