"""Parameter file for a user's own photos: what is in the folder, what the machine can do."""
